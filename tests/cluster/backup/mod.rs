//! Dumps, files put back, standbys, subscribers: nothing is lost, or devices notice it.

mod decoding;
mod dumps;
mod files;
mod patches;
mod promotion;
mod standby;
mod standby_devices;
