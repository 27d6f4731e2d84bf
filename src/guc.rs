//! Settings. All but the user are superuser-set: they protect the server and
//! other people's data, so a caller must not change them for itself. The user is
//! for the caller to tell, being the one that has authenticated them; a caller
//! that is not trusted with that must not be able to run arbitrary SQL.

use std::ffi::{CStr, CString, IntoStringError};
use std::sync::OnceLock;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::error::SyncError;
use crate::store;

static MAX_OPS_PER_PUSH: GucSetting<i32> = GucSetting::<i32>::new(1000);
static MAX_PAYLOAD_BYTES: GucSetting<i32> = GucSetting::<i32>::new(256 * 1024);
static MAX_PAGE_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(1000);
static MAX_PAGE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024 * 1024);
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 3600);
static DEVICE_TTL: GucSetting<i32> = GucSetting::<i32>::new(90 * 24 * 3600);
static USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static REQUIRE_USER: GucSetting<bool> = GucSetting::<bool>::new(false);
static MEMBERSHIP_FUNCTION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// A setting whose value was refused when the library was loaded.
static REFUSED: OnceLock<&CStr> = OnceLock::new();

const SUPERUSER_SET: [&CStr; 8] = [
    c"sync_ext.max_ops_per_push",
    c"sync_ext.max_payload_bytes",
    c"sync_ext.max_page_limit",
    c"sync_ext.max_page_bytes",
    c"sync_ext.retention",
    c"sync_ext.device_ttl",
    c"sync_ext.require_user",
    c"sync_ext.membership_function",
];

/// The shortest retention, of the setting and of sync_gc's argument: one hour.
pub const MIN_RETENTION_SECONDS: i32 = 3600;

/// Until a session loads the library, its settings are names that anybody may
/// give a value, and one that comes with the connection hides the role's, the
/// database's and the configuration file's. When the settings are defined,
/// Postgres finds out that it was not allowed, warns, and takes the built-in
/// value: a role could so take off what binds it. [`refused`] is for that.
pub fn init() {
    let before = SUPERUSER_SET.map(store::server::origin);
    define_all();
    let after = SUPERUSER_SET.map(store::server::origin);
    let kept = before.iter().zip(&after).zip(SUPERUSER_SET);
    for ((before, after), name) in kept {
        if before != after && !store::server::is_starting() {
            let _ = REFUSED.set(name);
        }
    }
}

fn define_all() {
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
        c"An op with a larger one is refused as OVERSIZED; its neighbours are not.",
        &MAX_PAYLOAD_BYTES,
        2,
        // A reply tells a winner's payload twice and must stay below 1 GB.
        256 * 1024 * 1024,
        bytes,
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
        c"A page ends before it is passed, but holds at least one row.",
        &MAX_PAGE_BYTES,
        1024,
        512 * 1024 * 1024,
        bytes,
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
    GucRegistry::define_string_guc(
        c"sync_ext.user_id",
        c"The user that the caller speaks for.",
        c"Empty: the sub of request.jwt.claims, and without that the caller is trusted.",
        &USER_ID,
        GucContext::Userset,
        count,
    );
    GucRegistry::define_bool_guc(
        c"sync_ext.require_user",
        c"Refuse callers that speak for no user.",
        c"Set it for the roles that are not trusted; they cannot take it off.",
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
    store::server::reserve_settings(c"sync_ext");
}

/// The name of a setting that is not what this session or an administrator set:
/// nothing may go by it.
pub fn refused() -> Option<String> {
    REFUSED.get().map(|name| name.to_string_lossy().into_owned())
}

pub fn max_ops_per_push() -> usize {
    count_of(&MAX_OPS_PER_PUSH)
}

pub fn max_payload_bytes() -> usize {
    count_of(&MAX_PAYLOAD_BYTES)
}

/// A caller's page_limit, or `default` for NULL, clamped to what is allowed.
pub fn page_limit(given: Option<i32>, default: i32) -> usize {
    let limit = given.unwrap_or(default).clamp(1, MAX_PAGE_LIMIT.get());
    usize::try_from(limit).unwrap_or(1)
}

pub fn max_page_bytes() -> usize {
    count_of(&MAX_PAGE_BYTES)
}

pub fn retention_micros() -> i64 {
    i64::from(RETENTION.get()) * 1_000_000
}

pub fn device_ttl_micros() -> i64 {
    i64::from(DEVICE_TTL.get()) * 1_000_000
}

/// The user who is set; `None` if none is.
pub fn user_id() -> Result<Option<String>, SyncError> {
    text_of(&USER_ID).map_err(|_| SyncError::UserId)
}

pub fn require_user() -> bool {
    REQUIRE_USER.get()
}

/// The name of the function, as it was set.
pub fn membership_function() -> Option<CString> {
    MEMBERSHIP_FUNCTION.get().filter(|name| !name.is_empty())
}

/// A setting that came with the connection may be in any encoding.
fn text_of(setting: &GucSetting<Option<CString>>) -> Result<Option<String>, IntoStringError> {
    let text = setting.get().map(CString::into_string).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

fn count_of(setting: &GucSetting<i32>) -> usize {
    // Every setting has a positive minimum.
    usize::try_from(setting.get()).unwrap_or(0)
}
