//! The origin of the settings' values, and values for a while.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys;

/// Whether the session had a value for this setting when it began: from the server's
/// configuration, the database, the role or the connection.
pub fn is_given(name: &CStr) -> bool {
    // SAFETY: the record, if there is one, lives until a setting is defined; it is read
    // before that.
    unsafe {
        let record = record(name);
        !record.is_null() && (*record).reset_source != pg_sys::GucSource::PGC_S_DEFAULT
    }
}

/// While it exists, settings have other values.
pub struct Changed {
    level: c_int,
}

impl Changed {
    pub fn begin(values: &[(&CStr, &CStr)]) -> Changed {
        // SAFETY: the names and values are NUL-terminated; the values before are saved, to
        // be restored with the level.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in values {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Changed { level }
        }
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction restores them.
        if !std::thread::panicking() {
            // SAFETY: the level that `begin` began.
            unsafe { pg_sys::AtEOXact_GUC(true, self.level) };
        }
    }
}

#[cfg(feature = "pg15")]
unsafe fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: the array has one record per setting, each with a NUL-terminated name.
    // Names are not case-sensitive.
    unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).unwrap_or(0);
        let records = std::slice::from_raw_parts(pg_sys::get_guc_variables(), count);
        let is_named = |record: &&*mut pg_sys::config_generic| {
            CStr::from_ptr((***record).name).to_bytes().eq_ignore_ascii_case(name.to_bytes())
        };
        records.iter().find(is_named).copied().unwrap_or(std::ptr::null_mut())
    }
}

#[cfg(not(feature = "pg15"))]
unsafe fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: the name is NUL-terminated; an unknown one returns NULL without an error.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, 0) }
}
