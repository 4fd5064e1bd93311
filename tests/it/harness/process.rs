//! Child processes that end with the test and show their log when it fails.

use super::wait_until;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running child; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `<dir>/<name>.log`.
    pub fn start(name: &str, dir: &Path, command: &mut Command) -> Process {
        let log = dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("a log file");
        let err = out.try_clone().expect("a second handle");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(err))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { name: name.to_string(), child, log }
    }

    /// A number of `/proc/<pid>/status` such as `VmHWM`, in kB.
    pub fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no {field} in {path}"))
    }

    /// All of its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Panics when it has ended.
    pub fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("{} ended with {status}:\n{}", self.name, self.tail(40));
        }
    }

    /// Waits for `GET url` to answer 200; panics at once when the process ends before.
    pub fn await_ready(&mut self, url: &str) {
        let name = self.name.clone();
        wait_until(&format!("{name} at {url}"), Duration::from_secs(60), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{name} ended with {status}:\n{}", self.tail(40));
            }
            match super::http::get(url) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("status {}", answer.status)),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Asks it to end (SIGTERM) and waits; panics when it takes more than a minute.
    pub fn stop(&mut self) {
        self.signal("TERM");
        wait_until(&format!("{} to stop", self.name), Duration::from_secs(60), || {
            match self.child.try_wait() {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err("still running".into()),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -$0 $1", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name} to {}", self.name);
    }

    /// The end of its log.
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ---\n{}", self.name, self.tail(25));
        }
    }
}
