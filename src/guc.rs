//! Settings. All except the user are for superusers: they protect the server and other
//! users' data, so a caller must not change them. The caller sets the user, because it
//! has authenticated them; a caller that is not trusted to do so must not be able to
//! run arbitrary SQL.

use std::ffi::{CStr, CString, IntoStringError};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

use crate::store;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::server_op::HlcStyle;

/// What a push sends to listeners when it commits.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum Notify {
    #[name = c"off"]
    Off,
    #[name = c"hint"]
    Hint,
    #[name = c"changes"]
    Changes,
}

/// How the server writes the hlc of its own ops.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum ServerHlc {
    #[name = c"millis"]
    Millis,
    #[name = c"iso"]
    Iso,
}

static MAX_OPS_PER_PUSH: GucSetting<i32> = GucSetting::<i32>::new(1000);
static MAX_PAYLOAD_BYTES: GucSetting<i32> = GucSetting::<i32>::new(256 * 1024);
static MAX_PAYLOAD_DEPTH: GucSetting<i32> = GucSetting::<i32>::new(100);
static MAX_PAGE_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(1000);
static MAX_PAGE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024 * 1024);
static MAX_CLOCK_DRIFT: GucSetting<i32> = GucSetting::<i32>::new(0);
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 3600);
static DEVICE_TTL: GucSetting<i32> = GucSetting::<i32>::new(90 * 24 * 3600);
/// Hints cost nothing where the library is preloaded.
static NOTIFY: [GucSetting<Notify>; 2] =
    [GucSetting::<Notify>::new(Notify::Off), GucSetting::<Notify>::new(Notify::Hint)];
static IS_PRELOADED: AtomicBool = AtomicBool::new(false);
static NOTIFY_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(20);
static NOTIFY_CHANNEL: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(DEFAULT_CHANNEL));
const DEFAULT_CHANNEL: &CStr = c"sync_ext";
static GC_LOCK_TIME: GucSetting<i32> = GucSetting::<i32>::new(3);
static APPLY_LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(50);
static APPLY_WAIT: GucSetting<i32> = GucSetting::<i32>::new(5000);
static CAPTURE: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_CAPTURED_ROWS: GucSetting<i32> = GucSetting::<i32>::new(1_000_000);
static SERVER_HLC: GucSetting<ServerHlc> = GucSetting::<ServerHlc>::new(ServerHlc::Millis);
static USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static REQUIRE_USER: GucSetting<bool> = GucSetting::<bool>::new(false);
static MEMBERSHIP_FUNCTION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// The shortest retention, of the setting and of sync_gc's argument: one hour.
pub const MIN_RETENTION_SECONDS: i32 = 3600;

/// The settings that callers may not set.
const GUARDED: [&CStr; 19] = [
    c"sync_ext.max_ops_per_push",
    c"sync_ext.max_payload_bytes",
    c"sync_ext.max_payload_depth",
    c"sync_ext.max_page_limit",
    c"sync_ext.max_page_bytes",
    c"sync_ext.max_clock_drift",
    c"sync_ext.retention",
    c"sync_ext.device_ttl",
    c"sync_ext.require_user",
    c"sync_ext.membership_function",
    c"sync_ext.server_hlc",
    c"sync_ext.notify",
    c"sync_ext.notify_channel",
    c"sync_ext.notify_interval",
    c"sync_ext.gc_lock_time",
    c"sync_ext.apply_lock_timeout",
    c"sync_ext.apply_wait",
    c"sync_ext.capture",
    c"sync_ext.max_captured_rows",
];

/// One of them whose value was refused when this library was loaded.
static REFUSED: OnceLock<&CStr> = OnceLock::new();

/// Defines the settings. In a session that began before this library was loaded they
/// may have values already. A value from the connection hides the value of the role or
/// the database. If it is refused, because the role may not set it, the default applies
/// instead of the hidden value, and a role that is bound by require_user would be free.
/// So this is remembered.
pub fn init() {
    // Inherited by all processes.
    IS_PRELOADED.store(store::server::is_preloading(), Ordering::Relaxed);
    let given = GUARDED.map(|name| (name, store::settings::is_given(name)));
    define();
    let refused = |(name, given): &(&CStr, bool)| *given && !store::settings::is_given(name);
    if let Some((name, _)) = given.into_iter().find(refused) {
        let _ = REFUSED.set(name);
    }
}

/// An error if the session began with a value that was refused.
pub fn require_accepted() -> Result<(), SyncError> {
    match REFUSED.get() {
        Some(name) => Err(SyncError::SettingRefused { name: name.to_string_lossy().into_owned() }),
        None => Ok(()),
    }
}

fn define() {
    let count = GucFlags::default();
    let bytes = GucFlags::UNIT_BYTE;
    let seconds = GucFlags::UNIT_S;
    let define = |name, short, long, setting, min, max, flags| {
        GucRegistry::define_int_guc(name, short, long, setting, min, max, GucContext::Suset, flags);
    };
    define(
        c"sync_ext.max_ops_per_push",
        c"Largest number of ops in one sync_push.",
        c"A larger batch is refused as a whole with SQLSTATE 54000.",
        &MAX_OPS_PER_PUSH,
        1,
        1_000_000,
        count,
    );
    define(
        c"sync_ext.max_payload_bytes",
        c"Largest payload of one op, in bytes as received.",
        c"An op with a larger one is refused as OVERSIZED; the other ops are not.",
        &MAX_PAYLOAD_BYTES,
        2,
        256 * 1024 * 1024,
        bytes,
    );
    define(
        c"sync_ext.max_payload_depth",
        c"Deepest nesting of the payload of one op; the payload itself is level 1.",
        c"An op with a deeper one is refused as OVERSIZED; the other ops are not.",
        &MAX_PAYLOAD_DEPTH,
        1,
        1_000_000,
        count,
    );
    define(
        c"sync_ext.max_page_limit",
        c"Largest number of rows in one page of sync_pull or sync_snapshot.",
        c"A larger page_limit is clamped to it.",
        &MAX_PAGE_LIMIT,
        1,
        1_000_000,
        count,
    );
    define(
        c"sync_ext.max_page_bytes",
        c"Largest size of the rows of one page of sync_pull or sync_snapshot.",
        c"A page ends before this is exceeded, but has at least one row.",
        &MAX_PAGE_BYTES,
        1024,
        512 * 1024 * 1024,
        bytes,
    );
    define(
        c"sync_ext.max_clock_drift",
        c"How far ahead of the server the hlc of an op may be; 0 for any.",
        c"Applies to an hlc that begins with 13 digits, milliseconds since 1970. An op that is \
          further ahead is refused as VALIDATION_ERROR.",
        &MAX_CLOCK_DRIFT,
        0,
        i32::MAX,
        seconds,
    );
    define(
        c"sync_ext.retention",
        c"Age below which sync_gc keeps every log entry.",
        c"Used by sync_gc when its argument is NULL.",
        &RETENTION,
        MIN_RETENTION_SECONDS,
        i32::MAX,
        seconds,
    );
    define(
        c"sync_ext.device_ttl",
        c"Time without acknowledgement after which a device no longer holds sync_gc back.",
        c"After twice this time the device's row is deleted.",
        &DEVICE_TTL,
        1,
        i32::MAX,
        seconds,
    );
    define(
        c"sync_ext.gc_lock_time",
        c"Longest time for which a call of sync_gc or sync_drop_workspace holds a workspace.",
        c"0: as long as its batch takes.",
        &GC_LOCK_TIME,
        0,
        i32::MAX,
        GucFlags::UNIT_MS,
    );
    define(
        c"sync_ext.apply_lock_timeout",
        c"How long a push waits for a row of an attached table while it holds its workspace.",
        c"Then it lets the workspace go, waits, and tries again.",
        &APPLY_LOCK_TIMEOUT,
        1,
        i32::MAX,
        GucFlags::UNIT_MS,
    );
    define(
        c"sync_ext.apply_wait",
        c"How long a push tries to write rows that other transactions hold.",
        c"Then it fails with SQLSTATE 55P03, and nothing is stored.",
        &APPLY_WAIT,
        0,
        i32::MAX,
        GucFlags::UNIT_MS,
    );
    define(
        c"sync_ext.notify_interval",
        c"Shortest time between two hints for a workspace, where a worker sends them.",
        c"0: as soon as possible.",
        &NOTIFY_INTERVAL,
        0,
        60_000,
        GucFlags::UNIT_MS,
    );
    define(
        c"sync_ext.max_captured_rows",
        c"Largest number of rows of attached tables that a transaction may change.",
        c"A statement that changes more fails with SQLSTATE 54000.",
        &MAX_CAPTURED_ROWS,
        1,
        i32::MAX,
        count,
    );
    GucRegistry::define_bool_guc(
        c"sync_ext.capture",
        c"Whether changes of attached tables become ops.",
        c"Switch it off only for a load that sync_repair_table follows.",
        &CAPTURE,
        GucContext::Suset,
        count,
    );
    GucRegistry::define_string_guc(
        c"sync_ext.user_id",
        c"The user that the caller acts for.",
        c"Empty: the sub of request.jwt.claims, and without that the caller is trusted.",
        &USER_ID,
        GucContext::Userset,
        count,
    );
    GucRegistry::define_bool_guc(
        c"sync_ext.require_user",
        c"Refuse callers without a user.",
        c"Set it for untrusted roles; they cannot switch it off.",
        &REQUIRE_USER,
        GucContext::Suset,
        count,
    );
    GucRegistry::define_string_guc(
        c"sync_ext.membership_function",
        c"Function (user_id text, workspace_id text) that returns a user's role.",
        c"Used instead of sync_ext.member, with the rights of the calling role.",
        &MEMBERSHIP_FUNCTION,
        GucContext::Suset,
        count,
    );
    GucRegistry::define_enum_guc(
        c"sync_ext.server_hlc",
        c"How the server writes the hlc of its own ops.",
        c"millis (13 digits of milliseconds since 1970) or iso (ISO 8601, in UTC).",
        &SERVER_HLC,
        GucContext::Suset,
        count,
    );
    GucRegistry::define_enum_guc(
        c"sync_ext.notify",
        c"What a push sends to listeners when it commits.",
        c"off, hint (workspace and head) or changes (those of the push too, if they fit).",
        notify_setting(),
        GucContext::Suset,
        count,
    );
    GucRegistry::define_string_guc(
        c"sync_ext.notify_channel",
        c"Channel of the notifications.",
        c"Empty: sync_ext.",
        &NOTIFY_CHANNEL,
        GucContext::Suset,
        GucFlags::IS_NAME,
    );
    store::server::reserve_settings(c"sync_ext");
}

pub fn max_ops_per_push() -> usize {
    count_of(&MAX_OPS_PER_PUSH)
}

pub fn max_payload_bytes() -> usize {
    count_of(&MAX_PAYLOAD_BYTES)
}

pub fn max_payload_depth() -> usize {
    count_of(&MAX_PAYLOAD_DEPTH)
}

/// A caller's page_limit, or `default` for NULL, clamped to the allowed range.
pub fn page_limit(given: Option<i32>, default: i32) -> usize {
    let limit = given.unwrap_or(default).clamp(1, MAX_PAGE_LIMIT.get());
    usize::try_from(limit).unwrap_or(1)
}

pub fn max_page_bytes() -> usize {
    count_of(&MAX_PAGE_BYTES)
}

/// `None` where it is not bounded.
pub fn max_clock_drift_millis() -> Option<i64> {
    Some(i64::from(MAX_CLOCK_DRIFT.get()) * 1_000).filter(|drift| *drift > 0)
}

pub fn retention_micros() -> i64 {
    i64::from(RETENTION.get()) * 1_000_000
}

pub fn device_ttl_micros() -> i64 {
    i64::from(DEVICE_TTL.get()) * 1_000_000
}

pub fn require_user() -> bool {
    REQUIRE_USER.get()
}

/// 0 if it is not limited.
pub fn gc_lock_time() -> Duration {
    millis_of(&GC_LOCK_TIME)
}

pub fn apply_lock_timeout() -> Duration {
    millis_of(&APPLY_LOCK_TIMEOUT)
}

pub fn apply_wait() -> Duration {
    millis_of(&APPLY_WAIT)
}

pub fn captures() -> bool {
    CAPTURE.get()
}

pub fn max_captured_rows() -> usize {
    count_of(&MAX_CAPTURED_ROWS)
}

/// The function's name, as it was set.
pub fn membership_function() -> Option<CString> {
    MEMBERSHIP_FUNCTION.get().filter(|name| !name.is_empty())
}

pub fn notify() -> Notify {
    notify_setting().get()
}

fn notify_setting() -> &'static GucSetting<Notify> {
    &NOTIFY[usize::from(IS_PRELOADED.load(Ordering::Relaxed))]
}

pub fn notify_interval() -> Duration {
    millis_of(&NOTIFY_INTERVAL)
}

pub fn notify_channel() -> String {
    match text_of(&NOTIFY_CHANNEL) {
        Ok(Some(channel)) => channel,
        _ => DEFAULT_CHANNEL.to_string_lossy().into_owned(),
    }
}

pub fn server_hlc() -> HlcStyle {
    match SERVER_HLC.get() {
        ServerHlc::Millis => HlcStyle::Millis,
        ServerHlc::Iso => HlcStyle::Iso,
    }
}

/// A setting from the connection may be in any encoding.
fn text_of(setting: &GucSetting<Option<CString>>) -> Result<Option<String>, IntoStringError> {
    let text = setting.get().map(CString::into_string).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

fn millis_of(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(u64::try_from(setting.get()).unwrap_or(0))
}

fn count_of(setting: &GucSetting<i32>) -> usize {
    // Every setting has a positive minimum.
    usize::try_from(setting.get()).unwrap_or(0)
}
