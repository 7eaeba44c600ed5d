//! Extended attributes: their names, sizes and modes; access lists and what they are handed down for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::place::on_a_mount;
use crate::support::command::{command, run, shell};
use crate::support::tree::is_root;
use crate::support::volume::Volume;

fn set(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    setxattr(path, name, value, XattrFlags::empty())
}

/// > **Extended attributes**: `user.`, `trusted.`, `security.` and the two lists; other names are `EOPNOTSUPP`. Values have
/// > at most 65,536 bytes (beyond: `E2BIG`), names 255 (`ERANGE`); a list of names that would be longer than 65,536 bytes
/// > is `E2BIG`, and what does not fit into the caller's memory `ERANGE`.
#[test]
fn attributes_keep_to_their_limits() {
    on_a_mount(|root| {
        let file = root.join("file");
        fs::write(&file, "").unwrap();
        set(&file, "user.large", &[1; 65_536]).unwrap();
        assert_eq!(set(&file, "user.larger", &[1; 65_537]), Err(Errno::TOOBIG));
        let mut room = vec![0; 65_536];
        assert_eq!(getxattr(&file, "user.large", &mut room), Ok(65_536));
        assert!(room.iter().all(|byte| *byte == 1));
        assert_eq!(getxattr(&file, "user.large", &mut room[..65_535]), Err(Errno::RANGE));
        assert_eq!(getxattr(&file, "user.larger", &mut room), Err(Errno::NODATA));
        let longest = format!("user.{}", "n".repeat(250));
        set(&file, &longest, b"x").unwrap();
        assert_eq!(set(&file, &format!("{longest}n"), b"x"), Err(Errno::RANGE));
        for name in ["system.other", "osx.name", "bare"] {
            assert_eq!(set(&file, name, b"x"), Err(Errno::OPNOTSUPP), "{name}");
            assert_eq!(getxattr(&file, name, &mut room), Err(Errno::OPNOTSUPP), "{name}");
            assert_eq!(removexattr(&file, name), Err(Errno::OPNOTSUPP), "{name}");
        }
        // The kernel asks for these by itself.
        for name in ["security.capability", "system.posix_acl_access", "system.posix_acl_default"] {
            assert_eq!(getxattr(&file, name, &mut room), Err(Errno::NODATA), "{name}");
        }
        if is_root() {
            for name in ["trusted.name", "security.name"] {
                set(&file, name, b"x").unwrap();
                assert_eq!(getxattr(&file, name, &mut room), Ok(1), "{name}");
            }
        }
        // 256 names of 256 bytes, their NULs counted, fill a list.
        let dir = root.join("dir");
        fs::create_dir(&dir).unwrap();
        for number in 0..256 {
            set(&dir, &format!("user.{number:0250}"), b"").unwrap();
        }
        let mut list = vec![0; 65_536];
        assert_eq!(listxattr(&dir, &mut list), Ok(65_536));
        assert_eq!(listxattr(&dir, &mut list[..65_535]), Err(Errno::RANGE));
        set(&dir, "user.x", b"").unwrap();
        assert_eq!(listxattr(&dir, &mut list), Err(Errno::TOOBIG));
    });
}

/// > `XATTR_CREATE` fails with `EEXIST` and `XATTR_REPLACE` with `ENODATA` where they should.
#[test]
fn attributes_are_made_and_replaced_as_asked() {
    on_a_mount(|root| {
        let file = root.join("file");
        fs::write(&file, "").unwrap();
        let with = |flags, value: &[u8]| setxattr(&file, "user.name", value, flags);
        assert_eq!(with(XattrFlags::REPLACE, b"1"), Err(Errno::NODATA));
        with(XattrFlags::CREATE, b"2").unwrap();
        assert_eq!(with(XattrFlags::CREATE, b"3"), Err(Errno::EXIST));
        with(XattrFlags::REPLACE, b"4").unwrap();
        let mut room = [0; 8];
        assert_eq!(getxattr(&file, "user.name", &mut room), Ok(1));
        assert_eq!(room[0], b'4');
        removexattr(&file, "user.name").unwrap();
        assert_eq!(removexattr(&file, "user.name"), Err(Errno::NODATA));
    });
}

/// Who may not read a value is not told of it: `rsync` would take it for a file that cannot be copied.
///
/// > Names in `trusted.` are listed for root only.
#[test]
fn attributes_of_root_are_listed_for_nobody_else() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount_spec().args(&["-o", "allow_other"]).mount();
    fs::set_permissions(&mount.dir, PermissionsExt::from_mode(0o777)).unwrap();
    let file = mount.path("file");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    for name in ["trusted.one", "security.two", "user.three", "trusted.four"] {
        set(&file, name, b"x").unwrap();
    }
    let as_user = |user: &str, script: &str| {
        let mut setpriv = command("setpriv", ["--reuid", user, "--regid", user, "--clear-groups"]);
        setpriv.args(["sh", "-ec", script]).current_dir(&mount.dir);
        run(setpriv).ok().text()
    };
    let listed = |user: &str| {
        let text = as_user(user, "getfattr -m - file");
        let mut names: Vec<_> = text.lines().filter(|line| line.contains('.')).map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(listed("0"), ["security.two", "trusted.four", "trusted.one", "user.three"]);
    assert_eq!(listed("65534"), ["security.two", "user.three"]);
    as_user("65534", "rsync -aX file copy");
    let mut room = [0; 8];
    assert_eq!(getxattr(mount.path("copy"), "user.three", &mut room), Ok(1));
    mount.unmount();
}

/// > To remove an access list that is not there succeeds.
#[test]
fn an_access_list_can_be_removed_that_is_not_there() {
    on_a_mount(|root| {
        let dir = root.join("dir");
        fs::create_dir(&dir).unwrap();
        let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
        let mut room = [0; 64];
        for round in ["never there", "there once"] {
            for name in [access, default] {
                assert_eq!(removexattr(&dir, name), Ok(()), "{name}: {round}");
                assert_eq!(getxattr(&dir, name, &mut room), Err(Errno::NODATA), "{name}: {round}");
            }
            shell(root, "setfacl -m u:1234:rwx dir; setfacl -d -m u:1234:rwx dir");
            assert!(getxattr(&dir, access, &mut room).is_ok() && getxattr(&dir, default, &mut room).is_ok());
            assert_eq!((removexattr(&dir, access), removexattr(&dir, default)), (Ok(()), Ok(())));
        }
        assert_eq!(removexattr(&dir, "user.name"), Err(Errno::NODATA), "of others that is told");
    });
}

/// > **Access lists** (`system.posix_acl_access`, `system.posix_acl_default`) are stored, enforced by the kernel, kept in
/// > step with `chmod`, and handed down to new entries in the umask's place. An access list that only repeats the mode is
/// > not stored.
#[test]
fn a_default_list_takes_the_umasks_place_and_a_list_follows_chmod() {
    on_a_mount(|root| {
        shell(
            root,
            "mkdir plain listed; setfacl -d -m u::rwx,u:1234:rwx,g::rx,o::r listed
             umask 077; touch plain/file listed/file; mkdir listed/dir; chmod 640 listed/file
             touch repeated; setfacl -m u::rw,g::-,o::- repeated",
        );
        let acl = |name: &str| {
            let mut getfacl = command("getfacl", ["-cpn", "--omit-header", name]);
            getfacl.current_dir(root);
            run(getfacl).ok().text().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(acl("plain/file"), ["user::rw-", "group::---", "other::---"]);
        let listed = acl("listed/file");
        assert_eq!(listed[..2], ["user::rw-", "user:1234:rwx"], "{listed:?}");
        assert!(listed.contains(&"mask::r--".to_owned()), "chmod sets the mask: {listed:?}");
        assert!(acl("listed/dir").contains(&"other::r--".to_owned()), "{:?}", acl("listed/dir"));
        assert!(acl("listed/dir").contains(&"default:user:1234:rwx".to_owned()), "{:?}", acl("listed/dir"));
        let mut room = [0; 64];
        let stored = getxattr(root.join("repeated"), "system.posix_acl_access", &mut room);
        assert_eq!(stored, Err(Errno::NODATA));
    });
}
