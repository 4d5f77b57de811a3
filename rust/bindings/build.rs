//! Passes the properties of the Python that the extension is built for on to the compiler, `Py_GIL_DISABLED` among them.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
