//! Devices and terminals (B05, B08, B09).

use e2e::cli::{Run, compiled};

/// B08: a handful of devices, and no way to make another.
#[tokio::test]
async fn b08_only_harmless_devices_exist() {
    let said = Run::new(&[]).sh("ls /dev | tr '\\n' ' '").await;
    assert_eq!(
        said.stdout.trim(),
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    let script = "import os, stat\n\
        for name, kind, device in [('sda', stat.S_IFBLK, (8, 0)), ('mem', stat.S_IFCHR, (1, 1)), ('kmsg', stat.S_IFCHR, (1, 11)), ('null', stat.S_IFCHR, (1, 3))]:\n\
        \x20 for directory in ('/output', '/tmp', '/dev', '/dev/shm'):\n\
        \x20   try: os.mknod(f'{directory}/{name}2', kind | 0o666, os.makedev(*device)); print('made', directory, name)\n\
        \x20   except OSError: pass\n\
        os.mkfifo('/output/fifo'); print('fifo')\n\
        for path in ['/dev/null', '/dev/zero', '/dev']:\n\
        \x20 for act in (os.unlink, lambda p: os.rename(p, '/output/x'), lambda p: os.symlink('/x', p + '2')):\n\
        \x20   try: act(path); print('changed', path)\n\
        \x20   except OSError: pass";
    let said = Run::new(&[]).python(script).await;
    assert_eq!(said.stdout, "fifo\n", "{}", said.stderr);
}

/// B05: no typing into a terminal, whatever hides in the upper half of the argument.
#[tokio::test]
async fn b05_nothing_is_typed_into_a_terminal() {
    let attack = compiled(
        r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <pty.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/ioctl.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(void) {
            int master = posix_openpt(O_RDWR | O_NOCTTY);
            if (master < 0 || grantpt(master) || unlockpt(master)) { perror("pty"); return 1; }
            int tty = open(ptsname(master), O_RDWR);
            if (tty < 0) { perror("pts"); return 1; }
            char c = 'x';
            unsigned long requests[] = {0x5412, 0x541c, 0x5412 | 1UL << 32, 0x5412 | 0xffffffffUL << 32, 0x541c | 1UL << 40};
            for (unsigned n = 0; n < 5; n++)
                if (syscall(SYS_ioctl, tty, requests[n], &c) == 0 || errno != EPERM) printf("ioctl %lx: errno %d\n", requests[n], errno);
            struct winsize size;
            if (ioctl(tty, TIOCGWINSZ, &size)) printf("a pty is of no use\n");
            return 0;
        }"#,
    )
    .await;
    let said =
        Run::new(&["--workspace", attack.path().to_str().unwrap()]).command(&["./attack"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{}", said.stderr);
}

/// B09: what is in `/tmp` and `/dev/shm` cannot be executed, not by the loader nor by a mapping.
#[tokio::test]
async fn b09_nothing_in_tmp_is_executed() {
    let script = "import ctypes, mmap, os, shutil, subprocess\n\
        for directory in ('/tmp', '/dev/shm'):\n\
        \x20 path = directory + '/true'\n\
        \x20 shutil.copy('/bin/true', path); os.chmod(path, 0o755)\n\
        \x20 try: subprocess.run([path]); print('executed', path)\n\
        \x20 except PermissionError: pass\n\
        \x20 loader = next(p for p in ('/lib64/ld-linux-x86-64.so.2', '/lib/ld-musl-x86_64.so.1') if os.path.exists(p))\n\
        \x20 if subprocess.run([loader, path], stderr=subprocess.DEVNULL).returncode == 0: print('loaded', path)\n\
        \x20 fd = os.open(path, os.O_RDWR)\n\
        \x20 try: mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC); print('mapped', path)\n\
        \x20 except (PermissionError, OSError): pass\n\
        shutil.copy('/bin/true', '/output/true'); os.chmod('/output/true', 0o755)\n\
        print(subprocess.run(['/output/true']).returncode)";
    let said = Run::new(&[]).python(script).await;
    assert_eq!(said.stdout, "0\n", "{}", said.stderr);
}
