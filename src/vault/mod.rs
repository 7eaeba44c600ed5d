//! Sealed objects by id: everything that leaves or enters the process passes here.
