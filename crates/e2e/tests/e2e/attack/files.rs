//! The machine's files (C01–C03), and the limits of the jail's own (C08).

use std::os::unix::net::UnixListener;

use e2e::cli::{Run, open_to_all};

/// C01: what the machine keeps to itself is not there.
#[tokio::test]
async fn c01_the_machines_secrets_are_not_there() {
    let said = Run::new(&[])
        .sh("ls -d /root /home/* /var /run /sys /host /boot /srv /mnt /media /etc/shadow /etc/ssh /etc/sudoers /var/run/docker.sock /proc/1/root 2>/dev/null; cat /etc/passwd | cut -d: -f1 | tr '\\n' ' '; ls /etc | grep -c shadow")
        .await;
    assert_eq!(said.stdout, "/home/agent\nroot agent nobody 0\n", "{}", said.stderr);
    let users = Run::new(&[]).sh("find / -xdev -not -path '/proc/*' \\( -perm -4000 -o -perm -2000 \\) -newer /proc/1 2>/dev/null; find / -xdev -writable -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null").await;
    // The jail's own trees, each a mount of its own; nothing of the root.
    assert_eq!(users.stdout, "/home/agent\n/output\n/tmp\n");
}

/// C02: sockets of the machine, named and abstract.
#[tokio::test]
async fn c02_the_machines_sockets_are_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    open_to_all(directory.path());
    let _named = UnixListener::bind(directory.path().join("named")).unwrap();
    let name = format!("agentjail-test-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            &name,
        )
        .unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let path = directory.path().join("named");
    let script = format!(
        "import glob, socket\n\
         for address in [{:?}, '\\0{name}', '/run/docker.sock', '/var/run/docker.sock', '/run/dbus/system_bus_socket', '/run/systemd/private']:\n\
         \x20 for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):\n\
         \x20   try: socket.socket(socket.AF_UNIX, kind).connect(address); print('reached', address)\n\
         \x20   except OSError: pass\n\
         print(len(open('/proc/net/unix').readlines()) - 1)",
        path.display().to_string()
    );
    for net in ["none", "loopback"] {
        let said = Run::new(&["--net", net]).python(&script).await;
        assert!(!said.stdout.contains("reached"), "{}", said.stdout);
        // C03: with nobody of the machine to speak to, no descriptor can be passed in. What is
        // listed are the sockets of this jail: init's.
        assert!(said.stdout.trim().parse::<u32>().unwrap() <= 2, "{}", said.stdout);
    }
}

/// C08, F11: memory that looks like files is limited in size and number, and counted.
#[tokio::test]
async fn c08_f11_filling_every_tree_fills_only_the_jail() {
    for directory in ["/tmp", "/dev/shm", "/output", "/home/agent"] {
        let said = Run::new(&["--memory-mb", "128", "--timeout", "30"])
            .sh(&format!("head -c 2G /dev/zero > {directory}/big; stat -c %s {directory}/big"))
            .await;
        let size: u64 = said.stdout.trim().parse().unwrap_or_default();
        assert!(said.code == 137 || size < 256 << 20, "{directory}: {said:?}");
    }
    let inodes = "import os\nn = 0\ntry:\n  while n < 200000:\n    os.open(f'/tmp/{n}', os.O_CREAT); n += 1; os.close(3)\nexcept OSError as e: print(e.errno)";
    assert_eq!(Run::new(&[]).python(inodes).await.stdout, "28\n");
    let files = "import os\nn = 0\ntry:\n  while True: os.open('/dev/null', 0); n += 1\nexcept OSError as e: print(e.errno, n)";
    assert_eq!(Run::new(&[]).python(files).await.stdout, "24 4093\n");
}

/// A tree that is read-only is so for every call, and under every name.
#[tokio::test]
async fn read_only_means_read_only() {
    let directory = tempfile::tempdir().unwrap();
    open_to_all(directory.path());
    std::fs::write(directory.path().join("file"), "kept").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(directory.path().join("file"), mode).unwrap();
    let script = "import os\n\
        f = '/workspace/file'\n\
        acts = [lambda: os.open(f, os.O_WRONLY), lambda: os.open(f, os.O_RDWR), lambda: os.truncate(f, 0), lambda: os.unlink(f), lambda: os.rename(f, f + '2'), \
        lambda: os.link(f, '/workspace/l'), lambda: os.symlink('x', '/workspace/s'), lambda: os.mkdir('/workspace/d'), lambda: os.chmod(f, 0o777), lambda: os.utime(f), \
        lambda: os.open('/proc/self/fd/%d' % os.open(f, os.O_RDONLY), os.O_WRONLY), lambda: os.open('/proc/self/root' + f, os.O_WRONLY), lambda: os.open('/proc/self/cwd/file', os.O_WRONLY), \
        lambda: os.setxattr(f, 'user.x', b'y'), lambda: os.open('/usr/bin/x', os.O_CREAT | os.O_WRONLY), lambda: os.open('/etc/passwd', os.O_WRONLY)]\n\
        for n, act in enumerate(acts):\n\
        \x20 try: act(); print('did', n)\n\
        \x20 except OSError: pass";
    let said = Run::new(&["--workspace", directory.path().to_str().unwrap()]).python(script).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(directory.path().join("file")).unwrap(), "kept");
}

/// A11: no file of a jail runs as its owner, who outside may be root. By every call that has a mode.
#[tokio::test]
async fn a11_no_file_is_left_that_runs_as_its_owner() {
    let attack = e2e::cli::compiled(
        r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdint.h>
        #include <sys/stat.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            chdir(argv[1]);
            close(open("plain", O_CREAT | O_WRONLY, 0755));
            chmod("plain", 04755);
            int fd = open("plain", O_RDONLY);
            fchmod(fd, 06755);
            syscall(SYS_fchmodat, AT_FDCWD, "plain", 02755);
            syscall(452, AT_FDCWD, "plain", 04755, 0);
            close(open("a", O_CREAT | O_WRONLY, 04755));
            close(syscall(SYS_open, "b", O_CREAT | O_WRONLY, 02755));
            close(syscall(SYS_creat, "c", 06755));
            close(openat(AT_FDCWD, "d", O_CREAT | O_RDWR | O_EXCL, 04755));
            uint64_t how[3] = {O_CREAT | O_WRONLY, 04755, 0};
            close(syscall(437, AT_FDCWD, "e", how, sizeof how));
            mknod("f", S_IFREG | 04755, 0);
            syscall(SYS_mknodat, AT_FDCWD, "g", S_IFREG | 06755, 0);
            mkdir("h", 06755);
            int tmp = open(".", O_TMPFILE | O_RDWR, 04755);
            linkat(tmp, "", AT_FDCWD, "i", AT_EMPTY_PATH);
            return 0;
        }"#,
    )
    .await;
    let output = tempfile::tempdir().unwrap();
    let workspace = attack.path().to_str().unwrap();
    let flags = ["--workspace", workspace, "--rw", "--output", output.path().to_str().unwrap()];
    for tree in ["/workspace", "/output"] {
        let said = Run::new(&flags).command(&["/workspace/attack", tree]).await;
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let mut looked_at = 0;
    for directory in [attack.path(), output.path()] {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let mode = std::os::unix::fs::MetadataExt::mode(&entry.metadata().unwrap());
            assert_eq!(mode & 0o6000, 0, "{} has {mode:o}", entry.path().display());
            looked_at += 1;
        }
    }
    assert!(looked_at >= 4, "the attempts left {looked_at} files");
}

/// C02, C03: a socket in a directory that was given is no door, nor can a descriptor come through.
#[tokio::test]
async fn c02_c03_a_socket_in_a_host_directory_is_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    open_to_all(directory.path());
    let listener = UnixListener::bind(directory.path().join("door")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let script = "import socket\n\
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):\n\
        \x20 try: socket.socket(socket.AF_UNIX, kind).connect('/workspace/door'); print('reached')\n\
        \x20 except OSError: pass\n\
        a, b = socket.socketpair(); a.send(b'pair'); print(b.recv(9).decode())";
    let path = directory.path().to_str().unwrap();
    for flags in [vec!["--workspace", path], vec!["--workspace", path, "--rw"]] {
        let said = Run::new(&flags).python(script).await;
        assert_eq!(said.stdout, "pair\n", "{}", said.stderr);
    }
    assert!(listener.accept().is_err());
}

/// A05: a link that one run left is not followed by the next.
#[tokio::test]
async fn a05_a_link_left_by_a_run_is_not_followed() {
    let (project, victim) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = project.path().to_str().unwrap();
    let plant = format!("ln -sfn {} /workspace/out", victim.path().display());
    assert_eq!(Run::new(&["--workspace", path, "--rw"]).sh(&plant).await.code, 0);
    let said = Run::new(&["--output", &format!("{path}/out")]).sh("echo x > /output/x").await;
    assert!(said.code != 0 && said.stderr.contains("is a link"), "{}", said.stderr);
    assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 0);
}
