//! Histories out of seeds.

use super::chance::Chance;

pub const DATABASE: &str = "typed";

/// What is done; the seed says with what, given what is there.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub action: Action,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum Action {
    Statement,
    Write,
    Push { device: usize },
    Transaction,
    Drift,
    Gc,
    Pull { device: usize },
}

pub fn history(seed: u64, steps: usize) -> Vec<Step> {
    let mut chance = Chance::of(seed);
    let step = |_| {
        let device = chance.below(4);
        let action = match chance.below(40) {
            0..9 => Action::Statement,
            9..12 => Action::Write,
            12..24 => Action::Push { device },
            24..30 => Action::Transaction,
            30..32 => Action::Drift,
            32..33 => Action::Gc,
            _ => Action::Pull { device },
        };
        Step { action, seed: chance.seed() }
    };
    (0..steps).map(step).collect()
}
