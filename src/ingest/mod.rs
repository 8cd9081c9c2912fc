//! To be filled: see the module list in lib.rs.
