//! The store behind its seam: one suite for every implementation, and damage to the embedded one.

mod conformance;
mod damage;
mod open;
mod world;
