//! Translates kernel requests to `vfs` calls and back; knows kernel flags and nothing else.
