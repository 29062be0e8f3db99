//! An image of this machine's static busybox.

use fizz::wire::LeaseId;
use std::process::Command;

use crate::Outcome;

/// Removed when dropped.
pub struct Image {
    /// What jobs call it.
    pub name: String,
}

impl Image {
    /// Makes it. Needs `busybox-static`.
    pub fn import() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("image.tar");
        let program = std::fs::read("/bin/busybox").map_err(|_| "install busybox-static")?;
        let mut tar = tar::Builder::new(std::fs::File::create(&file)?);
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(program.len() as u64);
        tar.append_data(&mut header, "bin/busybox", program.as_slice())?;
        for applet in ["sh", "sleep", "true", "yes"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
        tar.finish()?;
        let name = format!("fizz-bench-{}:1", LeaseId::generate(fizz::clock::Clock::system().now()));
        let import = ["import", "-c", "ENV PATH=/bin", "-c", "LABEL io.fizz.shared=true"];
        let output = Command::new("docker").args(import).arg(&file).arg(&name).output()?;
        if output.status.success() {
            Ok(Self { name })
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Gone already, or the engine is; nothing more can be done about it.
        let _ = Command::new("docker").args(["rmi", "-f", &self.name]).output();
    }
}
