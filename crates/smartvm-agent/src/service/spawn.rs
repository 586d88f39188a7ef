//! Starting a command: who, where, with what, and exactly why not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::login::{self, Login};
use super::session::Guest;
use crate::protocol::{ErrorCode, Exec, Refusal, Terminal};

/// Where programs are looked for unless the request says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Added to the error number once and again for each step that can fail between fork and
/// exec, so that one number tells the parent both.
const STEP: i32 = 4096;
const STEP_USER: i32 = 2;
const STEP_DIRECTORY: i32 = 3;

/// A started command: the leader of its own session and process group.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Where a command without a terminal writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outputs {
    /// Two pipes, for standard output and standard error.
    Apart,
    /// One pipe for both, in the order in which they are written.
    Together,
}

/// Starts what `request` asks for.
pub(crate) fn spawn(request: &Exec, guest: &Guest, outputs: Outputs) -> Result<Child, Refusal> {
    let Some(name) = request.argv.first().filter(|name| !name.is_empty()) else {
        return Err(Refusal::new(
            ErrorCode::BadRequest,
            "the request names no program",
        ));
    };
    let login = login::find(request.user.as_deref().unwrap_or("root"), &guest.etc)?;
    let environment = environment(request, &login)?;
    let directory = directory(request, &login)?;
    let path = environment.get("PATH").map_or("", String::as_str);
    let program = find_program(name, path, &directory)?;

    let mut command = Command::new(&program);
    command
        .arg0(name)
        .args(&request.argv[1..])
        .env_clear()
        .envs(&environment);
    let (master, outputs) = match &request.tty {
        Some(terminal) => (
            Some(attach_terminal(&mut command, terminal, &login)?),
            [None, None],
        ),
        None => {
            let (stdout, its_stdout) = output_pipe(&login)?;
            let (stderr, its_stderr) = match outputs {
                Outputs::Apart => {
                    let (ours, its) = output_pipe(&login)?;
                    (Some(ours), its)
                }
                Outputs::Together => {
                    let its = its_stdout.try_clone();
                    (None, its.map_err(|error| no_pipe(&error))?)
                }
            };
            command
                .stdin(if request.stdin {
                    Stdio::piped()
                } else {
                    Stdio::null()
                })
                .stdout(its_stdout)
                .stderr(its_stderr);
            (None, [Some(stdout), stderr])
        }
    };
    let [stdout, stderr] = outputs;
    become_the_user(&mut command, &login, &directory, master.is_some(), guest);

    let mut child = command
        .spawn()
        .map_err(|error| refusal(&error, name, &directory, &login))?;
    // The command keeps copies of the other ends until it is dropped, and as long as one is
    // open here neither terminal nor pipe reports its end.
    drop(command);
    let failed =
        |error: Errno| Refusal::new(ErrorCode::Failed, format!("following {name:?}: {error}"));
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    let (stdin, stdout) = match &master {
        Some(master) => {
            let copy =
                |master: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(master, 0).map_err(failed);
            (
                request.stdin.then(|| copy(master)).transpose()?,
                Some(copy(master)?),
            )
        }
        None => (child.stdin.take().map(OwnedFd::from), stdout),
    };
    Ok(Child {
        pid,
        pidfd,
        stdin,
        stdout,
        stderr,
    })
}

fn environment(request: &Exec, login: &Login) -> Result<BTreeMap<String, String>, Refusal> {
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
    set("PATH", DEFAULT_PATH);
    set("HOME", login.home.as_deref().unwrap_or("/"));
    if let Some(name) = &login.name {
        set("USER", name);
        set("LOGNAME", name);
    }
    if let Some(shell) = &login.shell {
        set("SHELL", shell);
    }
    if let Some(terminal) = &request.tty {
        set("TERM", &terminal.term);
    }
    for (name, value) in &request.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Refusal::new(
                ErrorCode::BadRequest,
                format!(
                    "{name:?} can't be an environment variable's name, or its value holds a NUL"
                ),
            ));
        }
        set(name, value);
    }
    if request.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(Refusal::new(
            ErrorCode::BadRequest,
            "an argument holds a NUL",
        ));
    }
    Ok(environment)
}

fn directory(request: &Exec, login: &Login) -> Result<PathBuf, Refusal> {
    let Some(directory) = &request.cwd else {
        let home = login.home.as_deref().map(PathBuf::from);
        return Ok(home
            .filter(|home| home.is_absolute() && home.is_dir())
            .unwrap_or_else(|| "/".into()));
    };
    let reason = match std::fs::metadata(directory) {
        _ if !directory.is_absolute() => "it isn't an absolute path".to_owned(),
        Ok(metadata) if metadata.is_dir() => return Ok(directory.clone()),
        Ok(_) => "it isn't a directory".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Refusal::new(
        ErrorCode::NoSuchDirectory,
        format!("the working directory {}: {reason}", directory.display()),
    ))
}

/// Looks the program up as a shell would, in the command's own PATH.
fn find_program(name: &str, path: &str, directory: &Path) -> Result<PathBuf, Refusal> {
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![directory.join(name)]
    } else {
        std::env::split_paths(OsStr::new(path))
            .map(|entry| directory.join(entry).join(name))
            .collect()
    };
    let mut found = None;
    for candidate in candidates {
        match std::fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(_) => found = found.or(Some(candidate)),
            Err(_) => {}
        }
    }
    Err(match found {
        Some(found) => Refusal::new(
            ErrorCode::NotExecutable,
            format!("{}: not an executable file", found.display()),
        ),
        None => Refusal::new(
            ErrorCode::CommandNotFound,
            format!("{name}: command not found in the guest"),
        ),
    })
}

/// Makes a pipe for the command's output: our end, and its own, which belongs to its user, as
/// programs open their output again by name (/dev/stdout).
fn output_pipe(login: &Login) -> Result<(OwnedFd, PipeWriter), Refusal> {
    let make = || -> io::Result<(OwnedFd, PipeWriter)> {
        let (ours, its) = io::pipe()?;
        if is_superuser() {
            let uid = rustix::fs::Uid::from_raw(login.uid);
            rustix::fs::fchown(&its, Some(uid), None)?;
        }
        Ok((ours.into(), its))
    };
    make().map_err(|error| no_pipe(&error))
}

fn no_pipe(error: &io::Error) -> Refusal {
    let message = format!("making a pipe for the command's output: {error}");
    Refusal::new(ErrorCode::Failed, message)
}

/// Makes a terminal, gives its end to the command and returns ours.
fn attach_terminal(
    command: &mut Command,
    terminal: &Terminal,
    login: &Login,
) -> Result<OwnedFd, Refusal> {
    let make = || -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        resize(&master, terminal.rows, terminal.cols)?;
        // The terminal is the user's own; failing that it still works through descriptors.
        let _ = rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(login.uid)), None);
        Ok((master, slave))
    };
    let failed =
        |error: io::Error| Refusal::new(ErrorCode::Failed, format!("making a terminal: {error}"));
    let (master, slave) = make().map_err(failed)?;
    command
        .stdin(slave.try_clone().map_err(failed)?)
        .stdout(slave.try_clone().map_err(failed)?)
        .stderr(slave);
    Ok(master)
}

/// Sets a terminal's size in lines and columns.
pub(crate) fn resize(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    Ok(rustix::termios::tcsetwinsize(
        terminal,
        Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?)
}

/// Arranges what happens between fork and exec: a session of its own, the user, the directory.
fn become_the_user(
    command: &mut Command,
    login: &Login,
    directory: &Path,
    terminal: bool,
    guest: &Guest,
) {
    let ids = is_superuser().then(|| {
        let groups: Vec<_> = login
            .groups
            .iter()
            .map(|&id| rustix::fs::Gid::from_raw(id))
            .collect();
        (
            groups,
            rustix::fs::Gid::from_raw(login.gid),
            rustix::fs::Uid::from_raw(login.uid),
        )
    });
    let expendable = is_protected_from_oom();
    let descriptors = guest.descriptors.map(|current| Rlimit {
        current: Some(current),
        ..rustix::process::getrlimit(Resource::Nofile)
    });
    let directory = directory.to_owned();
    let no_signals = no_signals();
    let prepare = move || -> io::Result<()> {
        // Process 1 takes its signals one by one; a mask is inherited, also across exec.
        // SAFETY: the set is initialised, and the old one isn't asked for.
        if unsafe { libc::sigprocmask(libc::SIG_SETMASK, &no_signals, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if expendable {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
            let mode = rustix::fs::Mode::empty();
            let score = rustix::fs::open(c"/proc/self/oom_score_adj", flags, mode)?;
            rustix::io::write(score, b"0")?;
        }
        if let Some(limit) = &descriptors {
            rustix::process::setrlimit(Resource::Nofile, *limit)?;
        }
        if let Some((groups, gid, uid)) = &ids {
            rustix::thread::set_thread_groups(groups).map_err(|error| at(STEP_USER, error))?;
            rustix::thread::set_thread_gid(*gid).map_err(|error| at(STEP_USER, error))?;
            rustix::thread::set_thread_uid(*uid).map_err(|error| at(STEP_USER, error))?;
        }
        rustix::process::chdir(&directory).map_err(|error| at(STEP_DIRECTORY, error))
    };
    // SAFETY: the closure makes plain system calls only: it takes no lock and doesn't allocate
    // (a path below rustix's stack limit is copied to the stack), so it may run in the forked
    // child of a process with threads. There is one thread in that child, so ids of the thread
    // are ids of the process.
    unsafe { command.pre_exec(prepare) };
}

fn no_signals() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn at(step: i32, error: Errno) -> io::Error {
    io::Error::from_raw_os_error(step * STEP + error.raw_os_error())
}

/// Whether this process may become other users. Otherwise (as an ordinary process in tests)
/// commands run as whoever it is.
fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process asked the kernel to spare it, which commands must not inherit.
fn is_protected_from_oom() -> bool {
    std::fs::read_to_string("/proc/self/oom_score_adj")
        .is_ok_and(|score| score.trim_start().starts_with('-'))
}

fn refusal(error: &io::Error, name: &str, directory: &Path, login: &Login) -> Refusal {
    let number = error.raw_os_error().unwrap_or(0);
    let cause = io::Error::from_raw_os_error(number % STEP);
    match number / STEP {
        STEP_USER => Refusal::new(
            ErrorCode::PermissionDenied,
            format!("becoming user {}: {cause}", login.uid),
        ),
        STEP_DIRECTORY => Refusal::new(
            ErrorCode::NoSuchDirectory,
            format!(
                "entering {} as user {}: {cause}",
                directory.display(),
                login.uid
            ),
        ),
        _ => {
            let (code, reason) = match error.kind() {
                io::ErrorKind::NotFound => (
                    ErrorCode::CommandNotFound,
                    "its interpreter or loader doesn't exist in the guest".to_owned(),
                ),
                io::ErrorKind::PermissionDenied => (
                    ErrorCode::NotExecutable,
                    format!("not executable for user {}", login.uid),
                ),
                _ if number == Errno::NOEXEC.raw_os_error() => {
                    (ErrorCode::NotExecutable, cause.to_string())
                }
                _ => (ErrorCode::Failed, error.to_string()),
            };
            Refusal::new(code, format!("{name}: {reason}"))
        }
    }
}
