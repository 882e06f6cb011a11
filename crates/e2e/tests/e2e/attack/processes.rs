//! Processes, descriptors, `/proc` (A01–A15).

use e2e::cli::{Run, compiled};

/// A01: no descriptor but the three streams, and a working directory inside.
#[tokio::test]
async fn a01_no_descriptor_leaks_into_a_jail() {
    let said = Run::new(&[])
        .python("import os; print(sorted(os.listdir('/proc/self/fd')), os.getcwd())")
        .await;
    // The fourth is the listing itself.
    assert_eq!(said.stdout, "['0', '1', '2', '3'] /workspace\n");
    let reach = "import os\nfor n in range(3, 1024):\n  try: os.fstat(n); print('open', n)\n  except OSError: pass\n\
        for n in range(0, 64):\n  try: os.chdir(f'/proc/self/fd/{n}'); print('entered', n, os.getcwd())\n  except OSError: pass";
    assert_eq!(Run::new(&[]).python(reach).await.stdout, "");
}

/// A02, A09: init is not to be read, traced or overwritten, whoever asks.
#[tokio::test]
async fn a02_a09_init_cannot_be_reached_from_inside() {
    let script = "import os\nprint(sorted(p for p in os.listdir('/proc') if p.isdigit() and p != str(os.getpid())))\n\
        for name in ['exe', 'environ', 'mem', 'maps', 'fd', 'root', 'cwd', 'cmdline', 'ns/mnt', 'map_files']:\n\
        \x20 try:\n    path = '/proc/1/' + name\n    os.listdir(path) if name in ('fd', 'map_files') else open(path, 'rb').read(1)\n    print('read', path)\n\
        \x20 except OSError: pass\n\
        try: os.open('/proc/1/exe', os.O_WRONLY); print('wrote exe')\nexcept OSError: pass";
    let said = Run::new(&[]).python(script).await;
    assert_eq!(said.stdout, "[]\n", "{}", said.stderr);
}

/// A03, A06: the machine's `/proc` knobs are neither readable where they tell nor writable at all.
#[tokio::test]
async fn a03_a06_the_machines_knobs_are_out_of_reach() {
    let script = "import os\n\
        for name in ['kcore', 'kallsyms', 'keys', 'key-users', 'timer_list', 'kmsg', 'sysrq-trigger', 'sched_debug', 'latency_stats', 'vmallocinfo']:\n\
        \x20 path = '/proc/' + name\n\
        \x20 try:\n    data = open(path, 'rb').read(64)\n    if data: print('read', path)\n  except OSError: pass\n\
        \x20 try:\n    fd = os.open(path, os.O_WRONLY)\n    if os.fstat(fd).st_rdev == 0: print('opened', path)\n  except OSError: pass\n\
        for directory in ['acpi', 'scsi', 'irq', 'bus']:\n\
        \x20 try:\n    if os.listdir('/proc/' + directory): print('listed', directory)\n  except OSError: pass\n\
        for root, _, files in os.walk('/proc/sys'):\n\
        \x20 for name in files:\n    try: os.open(os.path.join(root, name), os.O_WRONLY); print('writable', root, name)\n    except OSError: pass";
    let said = Run::new(&[]).python(script).await;
    assert_eq!(said.stdout, "", "{}", said.stderr);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

/// A04, A05: links that a workspace brings stand where we mount, and lead nowhere.
#[tokio::test]
async fn a04_a05_links_in_a_workspace_do_not_redirect_our_mounts() {
    let directory = tempfile::tempdir().unwrap();
    e2e::cli::open_to_all(directory.path());
    for (name, target) in
        [("proc", "/"), ("dev", "/"), ("output", "/etc"), ("etc", "/etc"), ("null", "/dev/sda")]
    {
        std::os::unix::fs::symlink(target, directory.path().join(name)).unwrap();
    }
    let path = directory.path().to_str().unwrap();
    let said = Run::new(&["--workspace", path, "--rw"])
        .sh("cat output/shadow proc/root/.ssh/id_rsa etc/shadow 2>/dev/null; stat -c %F /dev/null; ls -d proc/home/*; echo x > /output/x && cat /output/x")
        .await;
    assert_eq!(said.stdout, "character special file\nproc/home/agent\nx\n", "{}", said.stderr);
    // A workspace that is itself a link is refused, not followed, once it has been resolved.
    let said = Run::new(&["--workspace", directory.path().join("null").to_str().unwrap()])
        .command(&["true"])
        .await;
    assert_ne!(said.code, 0);
}

/// A07: nobody is traced, read or written by another, init least of all.
#[tokio::test]
async fn a07_memory_of_others_is_out_of_reach() {
    let attack = compiled(
        r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/ptrace.h>
        #include <sys/syscall.h>
        #include <sys/uio.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static void tried(const char *name, long done) { if (done >= 0) printf("did %s\n", name); else if (errno != EPERM && errno != ENOSYS && errno != ESRCH && errno != EBADF) printf("%s: errno %d\n", name, errno); }
        int main(void) {
            char here[8] = {0};
            struct iovec local = {here, 8}, remote = {(void *)0x400000, 8};
            pid_t child = fork();
            if (child == 0) { sleep(20); _exit(0); }
            for (int n = 0; n < 2; n++) {
                pid_t pid = n ? child : 1;
                tried("ptrace attach", ptrace(PTRACE_ATTACH, pid, 0, 0));
                tried("ptrace seize", ptrace(PTRACE_SEIZE, pid, 0, 0));
                tried("process_vm_readv", syscall(SYS_process_vm_readv, pid, &local, 1, &remote, 1, 0));
                tried("process_vm_writev", syscall(SYS_process_vm_writev, pid, &local, 1, &remote, 1, 0));
                tried("kcmp", syscall(SYS_kcmp, getpid(), pid, 0, 0, 0));
                int pidfd = syscall(SYS_pidfd_open, pid, 0);
                tried("pidfd_getfd", syscall(438, pidfd, 0, 0));
                tried("process_madvise", syscall(440, pidfd, &local, 1, 21, 0));
                tried("setns", syscall(SYS_setns, pidfd, 0x20000));
            }
            kill(child, 9); wait(0);
            return 0;
        }"#,
    )
    .await;
    let said =
        Run::new(&["--workspace", attack.path().to_str().unwrap()]).command(&["./attack"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{}", said.stderr);
}

/// A08: signals to everyone reach the jail's own processes only, and not init.
#[tokio::test]
async fn a08_a_signal_to_everyone_stays_inside() {
    let script = "import os, signal, time\n\
        for pid in [1, -1]:\n  for number in [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGINT]:\n    try: os.kill(pid, number)\n    except OSError: pass\n\
        time.sleep(0.2); print('alive')";
    let said = Run::new(&[]).python(script).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "alive\n"), "{}", said.stderr);
}

/// A10: no core dumps.
#[tokio::test]
async fn a10_there_are_no_core_dumps() {
    let said = Run::new(&[])
        .sh("ulimit -Hc; cd /output; (kill -SEGV $$) ; sh -c 'kill -ABRT $$'; ls -a /output")
        .await;
    assert!(said.stdout.starts_with("0\n") && !said.stdout.contains("core"), "{}", said.stdout);
}

/// A11: no capability anywhere, no way to gain one.
#[tokio::test]
async fn a11_no_capability_is_held_or_can_be_gained() {
    let said = Run::new(&[]).sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status").await;
    for line in said.stdout.lines() {
        let (name, value) = line.split_once(':').unwrap();
        let expected = match name {
            "NoNewPrivs" => "1",
            "Seccomp" => "2",
            _ => "0000000000000000",
        };
        assert_eq!(value.trim(), expected, "{name}");
    }
    let said = Run::new(&[]).sh("for p in su mount passwd newgrp; do f=$(command -v $p) && [ -u $f ] && $f root </dev/null; done; id -u; findmnt -no OPTIONS /usr || grep ' /usr ' /proc/mounts").await;
    assert!(said.stdout.contains("1000") && said.stdout.contains("nosuid"), "{}", said.stdout);
    let raise = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        for call in [lambda: libc.setuid(0), lambda: libc.setresuid(0, 0, 0), lambda: libc.setgid(0), lambda: libc.prctl(47, 2, 21, 0, 0), lambda: libc.prctl(28, 0, 0, 0, 0)]:\n\
        \x20 if call() == 0: print('gained')";
    assert_eq!(Run::new(&[]).python(raise).await.stdout, "");
}

/// A12, B11: no new namespaces, by any call.
#[tokio::test]
async fn a12_b11_no_new_namespace_can_be_made() {
    let attack = compiled(
        r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <sched.h>
        #include <signal.h>
        #include <stdint.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(void) {
            long flags[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP, CLONE_NEWUSER | CLONE_NEWNS};
            for (unsigned n = 0; n < sizeof flags / sizeof *flags; n++) {
                if (syscall(SYS_unshare, flags[n]) == 0) printf("unshare %lx\n", flags[n]);
                long pid = syscall(SYS_clone, flags[n] | SIGCHLD, 0, 0, 0, 0);
                if (pid == 0) _exit(0);
                if (pid > 0) printf("clone %lx\n", flags[n]);
                uint64_t args[11] = {flags[n], 0, 0, 0, SIGCHLD};
                pid = syscall(435, args, sizeof args);
                if (pid == 0) _exit(0);
                if (pid > 0) printf("clone3 %lx\n", flags[n]);
                if (pid < 0 && errno != ENOSYS) printf("clone3 errno %d\n", errno);
            }
            const char *names[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"};
            for (unsigned n = 0; n < 8; n++) {
                char path[64];
                snprintf(path, sizeof path, "/proc/self/ns/%s", names[n]);
                int fd = open(path, O_RDONLY);
                if (fd >= 0 && syscall(SYS_setns, fd, 0) == 0) printf("setns %s\n", path);
            }
            return 0;
        }"#,
    )
    .await;
    let said =
        Run::new(&["--workspace", attack.path().to_str().unwrap()]).command(&["./attack"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{}", said.stderr);
}

/// A13, B12: no way out by changing the root, nor by file handles.
#[tokio::test]
async fn a13_b12_the_root_cannot_be_left() {
    let script = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        os.makedirs('/output/d', exist_ok=True)\n\
        fd = os.open('/', os.O_RDONLY)\n\
        if libc.chroot(b'/output/d') == 0: print('chroot')\n\
        if libc.syscall(155, b'/output', b'/output/d') == 0: print('pivot_root')\n\
        os.fchdir(fd)\n\
        for _ in range(64): os.chdir('..')\n\
        print(sorted(os.listdir('.')) == sorted(os.listdir('/')), os.path.exists('/host'), os.path.exists('root'))\n\
        handle = ctypes.create_string_buffer(136)\n\
        ctypes.memmove(handle, (128).to_bytes(4, 'little'), 4)\n\
        mount = ctypes.c_int()\n\
        if libc.syscall(303, -100, b'/usr', handle, ctypes.byref(mount), 0) == 0: print('name_to_handle_at')\n\
        for inode in (2, 1):\n\
        \x20 ctypes.memmove(handle, (8).to_bytes(4, 'little') + (1).to_bytes(4, 'little') + inode.to_bytes(8, 'little'), 16)\n\
        \x20 if libc.syscall(304, fd, handle, os.O_RDONLY) >= 0: print('open_by_handle_at')";
    let said = Run::new(&[]).python(script).await;
    assert_eq!(said.stdout, "True False False\n", "{}", said.stderr);
}

/// A14, A15, F11: a fork bomb is one jail's, and ends with it.
#[tokio::test]
async fn a14_a15_f11_a_fork_bomb_is_contained_and_ends() {
    let began = std::time::Instant::now();
    let said = Run::new(&["--timeout", "2", "--max-pids", "32"])
        .python("import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0:\n      os.setsid(); time.sleep(71717)\n    n += 1\nexcept OSError: print(n, flush=True)\ntime.sleep(71717)")
        .await;
    assert_eq!(said.code, 124, "{}", said.stderr);
    assert_eq!(said.stdout.trim(), "31");
    assert!(began.elapsed().as_secs() < 10);
    e2e::house::eventually("nobody is left", async || {
        e2e::leftovers::processes("sleep(71717)").is_empty()
    })
    .await;
}
