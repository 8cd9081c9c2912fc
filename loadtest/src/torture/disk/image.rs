//! An ext4 file system in an image file, and the power cut.
//!
//! The image and its mount point lie in a directory of the run, so names are unique and nothing else
//! on the machine is touched. The loop device belongs to the mount and goes with it. What a killed
//! harness left mounted is unmounted at the next start ([`sweep`]): only mount points in directories
//! that carry its mark, and whose owner is dead.
//!
//! The cut is ext4's own shutdown without flushing its log (`EXT4_IOC_SHUTDOWN`, NOLOGFLUSH): nothing
//! that was not synced reaches the image any more, and after the next mount it is gone. The ioctl
//! is made by python3, for this workspace holds no unsafe code.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{need_root, run, until};

/// File beside a mount point: process id and start time of its owner.
const OWNER: &str = "posthaste-torture-owner";
/// For a file system whose last user has just died.
const PATIENCE: Duration = Duration::from_secs(10);
/// For other mount namespaces to end.
const LET_GO: Duration = Duration::from_secs(90);
/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, once told to.
const CUT: &str = "import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
if sys.stdin.readline():
    fcntl.ioctl(fd, 0x8004587d, (2).to_bytes(4, 'little'))
    print('cut', flush=True)
";

/// A mounted image. Unmounted and removed when dropped.
pub(super) struct Image {
    file: PathBuf,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    options: &'static str,
}

impl Image {
    /// Makes and mounts an image of `mib` in `dir`, which is made. The image is sparse.
    pub(super) fn make(dir: &Path, mib: u64, options: &'static str) -> anyhow::Result<Self> {
        Self::make_in(dir, dir, mib, options)
    }

    /// The same with the image file in another directory.
    pub(super) fn make_in(
        dir: &Path,
        file_dir: &Path,
        mib: u64,
        options: &'static str,
    ) -> anyhow::Result<Self> {
        need_root()?;
        let mount = dir.join("mnt");
        fs::create_dir_all(&mount)?;
        sign(dir)?;
        let file = file_dir.join("disk.img");
        fs::File::create(&file)?.set_len(mib << 20)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-m", "0", "-E", "nodiscard"])
            .arg(&file))?;
        let image = Self {
            file,
            mount,
            options,
        };
        image.mount()?;
        Ok(image)
    }

    /// Mounts it; what the file system's log holds is replayed.
    pub(super) fn mount(&self) -> anyhow::Result<()> {
        let options = match self.options {
            "" => String::from("loop"),
            more => format!("loop,{more}"),
        };
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", &options])
            .args([&self.file, &self.mount]))
        .map(drop)
    }

    /// Unmounts it. Its users must be gone, or on their way.
    ///
    /// Waits until the file system itself is gone: a process in a mount namespace of its own, made
    /// by others meanwhile, may keep it, and the next mount would be of the same one.
    pub(super) fn unmount(&self) -> anyhow::Result<()> {
        unmount(&self.mount)?;
        until("the loop device is free", LET_GO, || {
            let devices = run(Command::new("losetup").arg("-j").arg(&self.file))?;
            Ok(devices.trim().is_empty().then_some(()))
        })
    }

    /// Repairs what an error has left, as an operator would. It must be unmounted.
    pub(super) fn repair(&self) -> anyhow::Result<()> {
        // 1 = errors were corrected.
        let command = &mut Command::new("e2fsck");
        let output = command.args(["-f", "-y"]).arg(&self.file).output();
        let output = output.context("cannot run e2fsck; is it installed?")?;
        if !matches!(output.status.code(), Some(0 | 1)) {
            let said = String::from_utf8_lossy(&output.stdout);
            bail!("e2fsck ended with {}: {said}", output.status);
        }
        Ok(())
    }

    /// Gets ready to cut the power.
    pub(super) fn cutter(&self) -> anyhow::Result<Cutter> {
        let mut child = Command::new("python3")
            .args(["-c", CUT])
            .arg(&self.mount)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run python3; is it installed?")?;
        let tell = child.stdin.take().context("python3 has an input")?;
        let hear = child.stdout.take().context("python3 has an output")?;
        let mut cutter = Cutter {
            child,
            tell,
            hear: BufReader::new(hear),
        };
        cutter.hear("ready")?;
        Ok(cutter)
    }

    /// Makes the file system believe that it is damaged. With `errors=remount-ro` it then becomes
    /// read-only, which `mount -o remount,ro` refuses to do under a writer.
    pub(super) fn trip(&self) -> anyhow::Result<()> {
        let source = run(Command::new("findmnt")
            .args(["-n", "-o", "SOURCE", "--mountpoint"])
            .arg(&self.mount))?;
        let device = source.trim().trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        fs::write(&trigger, "torture").with_context(|| format!("cannot write {trigger}"))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // At an end by an error its user may live a moment longer; the next start sweeps again.
        if unmount(&self.mount).is_ok() && fs::remove_file(&self.file).is_err() {}
    }
}

/// Ready to cut the power at once.
pub(super) struct Cutter {
    child: Child,
    tell: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Cutter {
    /// Cuts the power; when it returns nothing reaches the image any more.
    pub(super) fn cut(mut self) -> anyhow::Result<()> {
        self.tell.write_all(b"now\n")?;
        self.hear("cut")
    }

    fn hear(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.hear.read_line(&mut line)?;
        if line.trim() != word {
            bail!("python3 said `{}`, not `{word}`", line.trim());
        }
        Ok(())
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        // It holds the mount point open; nothing can be done about an error here.
        if self.child.kill().is_ok() && self.child.wait().is_err() {}
    }
}

pub(super) fn unmount(mount: &Path) -> anyhow::Result<()> {
    until("an image is unmounted", PATIENCE, || {
        if !is_mounted(mount)? {
            return Ok(Some(()));
        }
        // Busy while the kernel still closes the files of a process that is gone.
        match run(Command::new("umount").arg(mount)) {
            Ok(_) | Err(_) => Ok(None),
        }
    })
}

fn mounts() -> anyhow::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(points
        .map(|point| point.replace("\\040", " ").into())
        .collect())
}

fn is_mounted(mount: &Path) -> anyhow::Result<bool> {
    let mount = fs::canonicalize(mount)?;
    Ok(mounts()?.contains(&mount))
}

/// Marks `dir` as this process's.
pub(super) fn sign(dir: &Path) -> anyhow::Result<()> {
    let me = std::process::id();
    let born = born(me).context("this process has a start time")?;
    fs::write(dir.join(OWNER), format!("{me} {born}"))?;
    Ok(())
}

/// Unmounts what a harness that is dead has left.
pub(super) fn sweep() -> anyhow::Result<()> {
    // An image may lie in a mounted directory, so the later mounts go first.
    for mount in mounts()?.iter().rev() {
        let Some(owner) = mount.parent().map(|dir| dir.join(OWNER)) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(owner) else {
            continue; // not ours
        };
        let owner = text.split_once(' ').and_then(|(pid, born)| {
            let pid: u32 = pid.parse().ok()?;
            Some((pid, born.trim().to_owned()))
        });
        let lives = owner.is_some_and(|(pid, then)| born(pid).is_some_and(|now| now == then));
        if !lives {
            unmount(mount)?;
        }
    }
    Ok(())
}

/// When the process was started, in the kernel's ticks.
fn born(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; the start time is the 20th field behind it.
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(19).map(str::to_owned)
}
