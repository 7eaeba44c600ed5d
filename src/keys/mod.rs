//! The volume header: its slots, unlocking and changing them.
