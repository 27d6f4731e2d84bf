//! The origin of the settings' values.

use std::ffi::CStr;

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
