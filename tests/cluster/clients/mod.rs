//! Drivers of other languages, and notifications.

mod drivers;
mod notify;
