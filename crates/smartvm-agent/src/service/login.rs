//! Who a command runs as: users and groups from the guest's own `passwd` and `group`.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::protocol::{ErrorCode, Refusal};

/// The most that is read of either file, in bytes.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// The most supplementary groups a command gets: the kernel's own limit.
const GROUP_LIMIT: usize = 65536;

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one among them.
    pub(crate) groups: Vec<u32>,
    /// The name, where the user has one.
    pub(crate) name: Option<String>,
    pub(crate) home: Option<String>,
    pub(crate) shell: Option<String>,
}

/// Finds who `user` (`USER`, `UID`, `USER:GROUP` or `UID:GID`) is in the files under `etc`.
/// A numeric id needs no entry.
pub(crate) fn find(user: &str, etc: &Path) -> Result<Login, Refusal> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let number = user.parse::<u32>().ok();
    let entry = lines(&etc.join("passwd"))
        .filter_map(|line| Entry::parse(&line))
        .find(|entry| entry.name == user || Some(entry.uid) == number);
    let mut login = match (entry, number) {
        (Some(entry), _) => Login {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            name: Some(entry.name),
            home: Some(entry.home).filter(|home| !home.is_empty()),
            shell: Some(entry.shell).filter(|shell| !shell.is_empty()),
        },
        // A root without a passwd file still has its superuser.
        (None, _) if user == "root" || number == Some(0) => superuser(),
        (None, Some(uid)) => Login {
            uid,
            gid: uid,
            groups: Vec::new(),
            name: None,
            home: None,
            shell: None,
        },
        (None, None) => {
            return Err(Refusal::new(
                ErrorCode::NoSuchUser,
                format!("the guest has no user {user:?}"),
            ));
        }
    };
    match group {
        Some(group) => {
            login.gid = group_id(group, etc)?;
            login.groups = vec![login.gid];
        }
        None => login.groups = groups_of(&login, etc),
    }
    Ok(login)
}

fn superuser() -> Login {
    Login {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        name: Some("root".to_owned()),
        home: Some("/root".to_owned()),
        shell: None,
    }
}

fn group_id(group: &str, etc: &Path) -> Result<u32, Refusal> {
    let number = group.parse::<u32>().ok();
    lines(&etc.join("group"))
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let id = fields.nth(1)?.parse::<u32>().ok()?;
            (name == group).then_some(id)
        })
        .next()
        .or(number)
        .ok_or_else(|| {
            Refusal::new(
                ErrorCode::NoSuchUser,
                format!("the guest has no group {group:?}"),
            )
        })
}

fn groups_of(login: &Login, etc: &Path) -> Vec<u32> {
    let mut groups = vec![login.gid];
    if let Some(name) = &login.name {
        for line in lines(&etc.join("group")) {
            let fields: Vec<&str> = line.split(':').collect();
            if let [_, _, id, members] = fields[..]
                && members.split(',').any(|member| member == name)
                && let Ok(id) = id.parse()
                && !groups.contains(&id)
                && groups.len() < GROUP_LIMIT
            {
                groups.push(id);
            }
        }
    }
    groups
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else {
            return None;
        };
        Some(Self {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
            shell: shell.to_owned(),
        })
    }
}

/// The lines of a small text file; of a missing or odd one, none.
fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let file = regular
        .then(|| std::fs::File::open(path).ok())
        .flatten()
        .map(|file| BufReader::new(file.take(FILE_LIMIT)));
    file.into_iter().flat_map(|file| {
        file.split(b'\n')
            .map_while(Result::ok)
            .map(|line| String::from_utf8_lossy(&line).trim_end().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etc() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(
            dir.path().join("passwd"),
            "root:x:0:0:root:/root:/bin/bash\nbroken line\n\
             ada:x:1000:1001:Ada,,,:/home/ada:/bin/zsh\nnobody:x:65534:65534::/:\n",
        )
        .expect("passwd");
        std::fs::write(
            dir.path().join("group"),
            "root:x:0:\nada:x:1001:\nwheel:x:10:root,ada\nkvm:x:20:ada\nmany:x:30:bob\n",
        )
        .expect("group");
        dir
    }

    #[test]
    fn a_name_brings_its_groups_home_and_shell() {
        let etc = etc();
        let ada = find("ada", etc.path()).expect("ada");
        assert_eq!((ada.uid, ada.gid), (1000, 1001));
        assert_eq!(ada.groups, [1001, 10, 20]);
        assert_eq!(ada.home.as_deref(), Some("/home/ada"));
        assert_eq!(ada.shell.as_deref(), Some("/bin/zsh"));
        assert_eq!(find("1000", etc.path()).expect("by id"), ada);
    }

    #[test]
    fn a_group_replaces_the_users_own_ones() {
        let etc = etc();
        let ada = find("ada:kvm", etc.path()).expect("ada:kvm");
        assert_eq!((ada.uid, ada.gid, ada.groups), (1000, 20, vec![20]));
        let ids = find("7:8", etc.path()).expect("7:8");
        assert_eq!((ids.uid, ids.gid, ids.groups), (7, 8, vec![8]));
    }

    #[test]
    fn who_does_not_exist_is_refused_by_name_but_not_by_number() {
        let etc = etc();
        for unknown in ["eve", "", "ada:eve", "-1", ":0"] {
            let error = find(unknown, etc.path()).expect_err(unknown);
            assert_eq!(error.code, ErrorCode::NoSuchUser, "{unknown}");
        }
        assert_eq!(find("4242", etc.path()).expect("a number").gid, 4242);
    }

    #[test]
    fn root_exists_without_any_files() {
        let empty = tempfile::tempdir().expect("a directory");
        let root = find("root", empty.path()).expect("root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(find("0", empty.path()).expect("0"), root);
    }
}
