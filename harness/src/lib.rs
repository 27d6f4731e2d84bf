//! Testing sync_ext from outside: throw-away clusters and simulated devices.
//!
//! * [`attached`]: attached tables and the log, compared
//! * [`batch`]: ops for tests
//! * [`bouncer`]: PgBouncer before databases
//! * [`cluster`]: a Postgres server of its own, gone when dropped
//! * [`database`]: a cluster that tests share, with a database for each
//! * [`device`]: a client that follows the rules for clients
//! * [`document`]: documents with executed examples
//! * [`dump`]: dumps of databases
//! * [`edit`]: a user's edits on a device
//! * [`files`]: backups of a server's files, and restoring them
//! * [`loss`]: devices of a server that has lost its last commits
//! * [`moves`]: moving a workspace to another server
//! * [`outbox`]: ops that wait there, and records as users see them
//! * `programs`: psql and other programs beside a server
//! * [`replies`]: the replies of the functions, as far as a device reads them
//! * [`router`]: a database that routes calls to several servers
//! * [`replica`]: a streaming standby that lags, is cut off or promoted
//! * `server`: the process of a server, and its end
//! * [`soundness`]: checks of tables and indexes with amcheck
//! * [`state`]: a digest of a workspace's state, from server or device
//! * [`steps`]: several sessions, step by step
//! * [`wire`]: calls and their replies, recorded and repeated

pub mod attached;
pub mod batch;
pub mod bouncer;
pub mod cluster;
pub mod database;
pub mod device;
pub mod document;
pub mod dump;
pub mod edit;
pub mod files;
pub mod loss;
pub mod moves;
pub mod outbox;
mod programs;
pub mod replica;
pub mod replies;
pub mod router;
mod server;
pub mod soundness;
pub mod state;
pub mod steps;
pub mod wire;
