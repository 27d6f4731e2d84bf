//! Functions of the app that take three json, as validation functions do.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_catalog::pg_proc::{PgProc, ProKind};
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::arena::Arena;
use super::compat;

const ARGUMENTS: [pg_sys::Oid; 3] = [pg_sys::JSONOID; 3];

/// A function that takes three json, NULLs included, and returns a text.
#[derive(Clone, Copy)]
pub struct Function {
    oid: pg_sys::Oid,
    pub owner: pg_sys::Oid,
}

impl Function {
    /// `None` if the function is another one, or does not exist.
    pub fn of(oid: pg_sys::Oid) -> Option<Function> {
        let function = PgProc::new(oid)?;
        let is_one = matches!(function.prokind(), ProKind::Function)
            && function.proargtypes() == ARGUMENTS
            && function.prorettype() == pg_sys::TEXTOID
            && !function.proretset()
            && !function.proisstrict();
        is_one.then(|| Function { oid, owner: function.proowner() })
    }

    /// Finds it by its name with its schema. No role needs rights on the schema.
    pub fn named(name: &str) -> Option<Function> {
        let name = CString::new(name).ok()?;
        let (mut schema, mut own): (*mut c_char, *mut c_char) = Default::default();
        // SAFETY: the parts of the name are new allocations, NUL-terminated; the cache
        // compares them and the types of the arguments with its keys.
        let oid = unsafe {
            pg_sys::DeconstructQualifiedName(compat::qualified_name(&name), &mut schema, &mut own);
            if schema.is_null() {
                return None;
            }
            let types = pg_sys::buildoidvector(ARGUMENTS.as_ptr(), ARGUMENTS.len() as i32);
            pg_sys::GetSysCacheOid(
                pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
                pg_sys::Anum_pg_proc_oid as pg_sys::AttrNumber,
                pg_sys::Datum::from(own),
                pg_sys::Datum::from(types),
                pg_sys::Datum::from(pg_sys::get_namespace_oid(schema, true)),
                pg_sys::Datum::from(0),
            )
        };
        Function::of(oid)
    }

    /// Its name with its schema, as written in a statement.
    pub fn name(self) -> String {
        // SAFETY: look-ups by oid of what exists, because the function does; quoting makes
        // a new text.
        unsafe {
            let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace(self.oid));
            let name = pg_sys::quote_qualified_identifier(schema, pg_sys::get_func_name(self.oid));
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }

    /// Looks it up for calls.
    pub fn prepare(self) -> Prepared {
        let memory = Arena::new();
        let lookup = memory.allocate(size_of::<pg_sys::FmgrInfo>()).cast();
        // SAFETY: room for the look-up, in the context that it is made for.
        memory.enter(|| unsafe {
            pg_sys::fmgr_info_cxt(self.oid, lookup, pg_sys::CurrentMemoryContext);
        });
        Prepared { lookup, _memory: memory }
    }
}

/// A function that was looked up.
pub struct Prepared {
    lookup: *mut pg_sys::FmgrInfo,
    /// Has the look-up, and what the function keeps from call to call.
    _memory: Arena,
}

impl Prepared {
    /// Calls it; NULLs are `None`. The result is in the current memory context.
    ///
    /// # Safety
    /// The arguments are json, and live until after the call.
    pub unsafe fn call(&self, arguments: [Option<pg_sys::Datum>; 3]) -> Option<pg_sys::Datum> {
        let room = size_of::<pg_sys::FunctionCallInfoBaseData>()
            + arguments.len() * size_of::<pg_sys::NullableDatum>();
        // SAFETY: the caller's promise; zeros are a valid frame without arguments, and
        // there is room for them after it. The guard turns the function's errors into
        // unwinding.
        unsafe {
            let frame = pg_sys::palloc0(room).cast::<pg_sys::FunctionCallInfoBaseData>();
            (*frame).flinfo = self.lookup;
            (*frame).nargs = arguments.len() as i16;
            let places = (*frame).args.as_mut_ptr();
            for (place, argument) in arguments.into_iter().enumerate() {
                *places.add(place) = pg_sys::NullableDatum {
                    value: argument.unwrap_or(pg_sys::Datum::from(0)),
                    isnull: argument.is_none(),
                };
            }
            let Some(function) = (*self.lookup).fn_addr else {
                panic!("a function that was looked up has no address");
            };
            let result = pg_guard_ffi_boundary(|| function(frame));
            (!(*frame).isnull).then_some(result)
        }
    }
}
