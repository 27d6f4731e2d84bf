//! A standby, for reads that may be late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::database::{Argument, Database};
use crate::failure::Failure;

const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

pub struct Standby {
    pub database: Database,
    is_down: AtomicBool,
}

impl Standby {
    pub fn new(database: Database) -> Standby {
        Standby { database, is_down: AtomicBool::new(false) }
    }

    /// Whether it is worth asking.
    pub fn is_up(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed)
    }

    pub async fn call(
        self: &Arc<Standby>,
        user: Option<&str>,
        sql: &str,
        arguments: &[Argument<'_>],
    ) -> Result<String, Failure> {
        let answer = self.database.call(user, sql, arguments).await;
        let is_away = answer.as_ref().is_err_and(Failure::is_unreachable);
        if is_away && !self.is_down.swap(true, Ordering::Relaxed) {
            tokio::spawn(self.clone().until_up());
        }
        answer
    }

    /// Others do not wait for it meanwhile.
    async fn until_up(self: Arc<Standby>) {
        let mut back_off = BACK_OFF;
        loop {
            sleep(back_off).await;
            if self.database.call(None, "select ''", &[]).await.is_ok() {
                self.is_down.store(false, Ordering::Relaxed);
                return;
            }
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }
}
