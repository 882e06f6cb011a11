//! System calls (B01–B04, B06, B07, B10, B11).

use e2e::cli::{Run, compiled};

/// B01: calls of other ABIs do not get around the filter.
#[tokio::test]
async fn b01_foreign_abis_are_closed() {
    let attack = compiled(
        r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(void) {
            pid_t child = fork();
            if (child == 0) {
                long pid;
                __asm__ volatile("int $0x80" : "=a"(pid) : "a"(20) : "memory"); /* getpid of ia32 */
                printf("int 0x80 gave %ld\n", pid);
                fflush(stdout);
                _exit(0);
            }
            int status;
            wait(&status);
            if (!WIFSIGNALED(status) || WTERMSIG(status) != 31) printf("ia32 was not killed: %x\n", status);
            long x32 = syscall(0x40000000 | SYS_getpid);
            if (x32 != -1 || errno != ENOSYS) printf("x32 gave %ld\n", x32);
            return 0;
        }"#,
    )
    .await;
    let said =
        Run::new(&["--workspace", attack.path().to_str().unwrap()]).command(&["./attack"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{}", said.stderr);
}

/// B01, B03, B06, B07, B10, B11: what is dangerous is refused, what is unknown is absent.
#[tokio::test]
async fn b01_b03_b06_b07_b10_b11_dangerous_calls_are_refused() {
    // Numbers of x86-64, with arguments the kernel would accept from somebody who may.
    let script = "import ctypes, errno, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        b = ctypes.create_string_buffer(4096)\n\
        calls = {'mount': (165, b'none', b'/output', b'tmpfs', 0, 0), 'umount2': (166, b'/proc', 2), 'swapon': (167, b'/output/x', 0), 'reboot': (169, 0, 0, 0), \
        'init_module': (175, b, 16, b''), 'finit_module': (313, 0, b'', 0), 'delete_module': (176, b'x', 0), 'kexec_load': (246, 0, 0, 0, 0), \
        'add_key': (248, b'user', b'x', b'y', 1, -3), 'request_key': (249, b'user', b'x', 0, 0), 'keyctl': (250, 0, -3, 1), 'perf_event_open': (298, b, 0, -1, -1, 0), \
        'fanotify_init': (300, 0, 0), 'bpf': (321, 5, b, 128), 'userfaultfd': (323, 1), 'open_tree': (428, -100, b'/', 1), 'move_mount': (429, 0, b'', -100, b'/output', 4), \
        'fsopen': (430, b'tmpfs', 0), 'fspick': (433, -100, b'/', 0), 'mount_setattr': (442, -100, b'/', 0, b, 32), 'open_tree_attr': (467, -100, b'/', 1, b, 32), \
        'statmount': (457, b, b, 512, 0), 'listmount': (458, b, b, 16, 0), 'quotactl': (179, 0, 0, 0, 0), 'iopl': (172, 3), 'ioperm': (173, 0, 1, 1), 'modify_ldt': (154, 0, b, 16), \
        'syslog': (103, 3, b, 16), 'acct': (163, b'/output/a'), 'settimeofday': (164, b, 0), 'clock_settime': (227, 0, b), 'sethostname': (170, b'x', 1), 'vhangup': (153,), \
        'io_uring_setup': (425, 8, b), 'io_uring_register': (427, 0, 0, 0, 0), 'memfd_secret': (447, 0), 'vmsplice': (278, 1, b, 1, 0), 'move_pages': (279, 0, 0, 0, 0, 0, 0), \
        'personality no-randomize': (135, 0x0040000), 'personality read-implies-exec': (135, 0x0400000), 'lookup_dcookie': (212, 0, b, 1), 'a call of the future': (599,)}\n\
        for name, call in calls.items():\n\
        \x20 if libc.syscall(*call) != -1: print('did', name)\n\
        \x20 elif ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS): print(name, errno.errorcode[ctypes.get_errno()])";
    for profile in ["standard", "strict"] {
        let said = Run::new(&["--seccomp", profile]).python(script).await;
        assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{profile}: {}", said.stderr);
    }
}

/// B04: only plain sockets; in the strict profile none.
#[tokio::test]
async fn b04_dangerous_socket_families_are_closed() {
    let script = "import socket\n\
        for family in range(0, 50):\n\
        \x20 for kind in (1, 2, 3, 5):\n\
        \x20   for protocol in (0, 1, 132, 33):\n\
        \x20     try: socket.socket(family, kind, protocol); print(family, kind, protocol)\n\
        \x20     except OSError: pass\n\
        try: socket.socketpair(30, 1); print('tipc pair')\n\
        except (OSError, AttributeError): pass";
    let said = Run::new(&[]).python(script).await;
    let opened: std::collections::BTreeSet<&str> = said.stdout.lines().collect();
    let plain = ["1 1 0", "1 2 0", "1 3 0", "1 5 0", "2 1 0", "2 2 0", "10 1 0", "10 2 0"];
    for line in &opened {
        assert!(plain.contains(line), "socket({line})");
    }
    assert!(opened.contains("2 1 0") && opened.contains("1 1 0"), "{opened:?}");
    let strict = Run::new(&["--seccomp", "strict"]).python(script).await;
    assert_eq!(strict.stdout, "");
}

/// B02: threads work in both profiles, since `clone3` is absent and not refused.
#[tokio::test]
async fn b02_threads_work_in_both_profiles() {
    for profile in ["standard", "strict"] {
        let said = Run::new(&["--seccomp", profile])
            .python("import threading\nts = [threading.Thread(target=lambda: None) for _ in range(20)]\n[t.start() for t in ts]; [t.join() for t in ts]; print('ok')")
            .await;
        assert_eq!(said.stdout, "ok\n", "{profile}: {}", said.stderr);
    }
}

/// F11: keys of TCP's signatures are kernel memory that no limit counts.
#[tokio::test]
async fn f11_kernel_memory_that_is_not_counted_cannot_be_had() {
    let script = "import socket\nfor option in (14, 32, 38):\n s=socket.socket()\n try: s.setsockopt(6, option, bytes(216)); print('took', option)\n except PermissionError: pass";
    for net in ["none", "loopback"] {
        let said = Run::new(&["--net", net]).python(script).await;
        assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said:?}");
    }
}
