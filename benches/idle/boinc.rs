//! boinc-client, where it is installed.

use std::path::Path;
use std::process::Command;

use crate::network::Process;

/// boinc-client without projects, as it is after its installation; `None` where it is not installed.
pub fn start(folder: &Path) -> Option<Process> {
    let mut boinc = Command::new("boinc");
    boinc.arg("--allow_multiple_clients").arg("--gui_rpc_unix_domain").arg("--dir").arg(folder);
    Process::start(&mut boinc, &folder.join("boinc.log")).ok()
}
