//! Rules that the compiler cannot check.
