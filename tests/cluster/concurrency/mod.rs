//! Several sessions on one workspace: who waits for whom, and what each then sees.

mod cursors;
mod drops;
mod erasing;
mod gc;
mod gc_marks;
mod members;
mod moments;
mod patches;
mod pushes;
mod races;
mod readers;
mod scopes;
mod snapshots;
mod tables;
