//! Drivers of other languages, and notifications.

mod drivers;
mod hints;
mod notify;
