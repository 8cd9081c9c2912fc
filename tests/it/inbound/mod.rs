//! What providers send in: over real sockets, against the whole HTTP surface, and against the real binary.

mod added;
mod canary;
mod crash;
mod kit;
mod refusals;
mod replay;
mod sources;
mod told;
mod vectors;
