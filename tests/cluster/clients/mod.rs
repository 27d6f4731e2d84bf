//! Drivers of other languages, and notifications.

mod drivers;
mod hints;
mod late_hints;
mod lost_hints;
mod notify;
