//! The user that the daemon runs as.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::str::FromStr;

use nix::unistd::{Gid, Group, User, getgrouplist};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{SandboxError, step};

/// A user, its group, and the other groups it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// `NAME`, `UID`, `NAME:GROUP`, `UID:GID`; a number needs no entry in the user database,
/// but then it needs a group.
impl FromStr for Identity {
    type Err = SandboxError;

    fn from_str(text: &str) -> Result<Self, SandboxError> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        let user = match name.parse::<u32>() {
            Ok(uid) => User::from_uid(uid.into()),
            Err(_) => User::from_name(name),
        };
        let user = user.map_err(lookup(name))?;
        let gid = group.map(group_id).transpose()?;
        match (user, name.parse(), gid) {
            (Some(user), ..) => {
                let gid = gid.unwrap_or(user.gid.as_raw());
                let groups = groups(&user.name, gid)?;
                Ok(Self { uid: user.uid.as_raw(), gid, groups })
            }
            (None, Ok(uid), Some(gid)) => Ok(Self { uid, gid, groups: vec![gid] }),
            (None, ..) => Err(SandboxError::NoUser(name.to_owned())),
        }
    }
}

fn lookup(name: &str) -> impl Fn(nix::errno::Errno) -> SandboxError {
    move |error| SandboxError::Lookup { name: name.to_owned(), source: error.into() }
}

fn group_id(text: &str) -> Result<u32, SandboxError> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    let group = Group::from_name(text).map_err(lookup(text))?;
    let group = group.ok_or_else(|| SandboxError::NoGroup(text.to_owned()))?;
    Ok(group.gid.as_raw())
}

/// Every group of the user.
fn groups(name: &str, gid: u32) -> Result<Vec<u32>, SandboxError> {
    let Ok(c_name) = CString::new(name) else { return Ok(vec![gid]) };
    let groups = getgrouplist(&c_name, Gid::from_raw(gid)).map_err(lookup(name))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

impl Identity {
    /// Its number, and those of its groups.
    pub(super) fn numbers(self) -> (u32, Vec<u32>) {
        (self.uid, self.groups)
    }

    /// Whether this process is that user already.
    pub(super) fn is_ours(&self) -> bool {
        rustix::process::geteuid().as_raw() == self.uid
    }

    /// Whether this process can become that user.
    pub(super) fn check(&self) -> Result<(), SandboxError> {
        match rustix::process::geteuid().is_root() {
            true => Ok(()),
            false => Err(SandboxError::NotRoot(self.uid)),
        }
    }

    /// Makes a directory that is not there, and those above it, and gives them to the user.
    pub(super) fn make_directory(&self, path: &Path, mode: u32) -> Result<(), SandboxError> {
        let fail = |source| SandboxError::Directory { path: path.to_owned(), source };
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let missing: Vec<_> = path.ancestors().take_while(|above| is_missing(above)).collect();
        for directory in missing.into_iter().rev() {
            let mode = if directory == path { mode } else { 0o755 };
            std::fs::DirBuilder::new().mode(mode).create(directory).map_err(fail)?;
            chown(directory, Some(self.uid), Some(self.gid)).map_err(fail)?;
        }
        Ok(())
    }

    /// Becomes the user, for good. `group` is one more group to belong to.
    pub(super) fn assume(&self, group: Option<u32>) -> Result<(), SandboxError> {
        let id = rustix::process::Gid::from_raw;
        let mut groups = self.groups.clone();
        groups.extend(group.filter(|group| !groups.contains(group)));
        let groups: Vec<_> = groups.into_iter().map(id).collect();
        set_thread_groups(&groups).map_err(step("take the user's groups"))?;
        let gid = id(self.gid);
        set_thread_res_gid(gid, gid, gid).map_err(step("take the user's group"))?;
        let uid = rustix::process::Uid::from_raw(self.uid);
        set_thread_res_uid(uid, uid, uid).map_err(step("become the user"))
    }
}

fn is_missing(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    !path.as_os_str().is_empty()
        && found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_or_numbered() {
        let root: Identity = "root".parse().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!("0".parse::<Identity>().unwrap(), root);
        let other: Identity = "4242:4343".parse().unwrap();
        assert_eq!(other, Identity { uid: 4242, gid: 4343, groups: vec![4343] });
        assert_eq!("root:4343".parse::<Identity>().unwrap().gid, 4343);
        assert!(matches!("4242".parse::<Identity>(), Err(SandboxError::NoUser(_))), "no group");
        assert!(matches!("nosuchuser".parse::<Identity>(), Err(SandboxError::NoUser(_))));
        assert!(matches!("root:nosuchgroup".parse::<Identity>(), Err(SandboxError::NoGroup(_))));
    }
}
