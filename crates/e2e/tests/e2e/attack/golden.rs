//! B01: every system call number by every interface, asked of the real filter in a real jail, against a
//! golden file for each profile.
//!
//! A call that a filter allows would be executed, and some of them would end the asker. So the asker puts
//! a filter of its own on top, which hands every call to a second thread instead; the kernel takes the
//! stricter of the two, so whatever arrives there is what the jail's filter allows.

use std::fmt::Write as _;
use std::path::Path;

use e2e::cli::{Run, compiled};

const ASK: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUMBERS = 600, X32 = 0x40000000, HANDED_OVER = 200 };
static volatile int listener = -1, done = 0;
static int native[NUMBERS], x32[NUMBERS];

static void *answer(void *unused) {
    while (listener < 0) sched_yield();
    for (;;) {
        struct seccomp_notif notif;
        memset(&notif, 0, sizeof notif);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notif)) continue;
        struct seccomp_notif_resp response = { .id = notif.id, .error = -HANDED_OVER };
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
        if (done) break;
    }
    for (int n = 0; n < NUMBERS; n++) printf("%d %d %d\n", n, native[n], x32[n]);
    fflush(stdout);
    _exit(0);
}

static int raw(long number) {
    long result;
    register long r10 asm("r10") = 0, r8 asm("r8") = 0, r9 asm("r9") = 0;
    asm volatile("syscall" : "=a"(result)
        : "a"(number), "D"(0L), "S"(0L), "d"(0L), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result < 0 ? (int)-result : 0;
}

int main(void) {
    int answered = 0;
    for (int n = 0; n < NUMBERS; n++) {
        pid_t child = fork();
        if (child == 0) {
            long a = n;
            asm volatile("int $0x80" : "+a"(a) : "b"(0), "c"(0), "d"(0) : "r8", "r9", "r10", "r11", "memory");
            _exit(7);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) answered++;
    }
    printf("ia32 %d\n", answered);
    fflush(stdout);
    pthread_t thread;
    pthread_create(&thread, 0, answer, 0);
    struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF) };
    struct sock_fprog program = { 1, code };
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0) { perror("seccomp"); return 1; }
    listener = fd;
    for (int n = 0; n < NUMBERS; n++) {
        /* uretprobe and uprobe: the kernel lets them pass by every filter, and ends a caller that is no probe. */
        native[n] = n == 335 || n == 336 ? 201 : raw(n);
        x32[n] = raw(X32 + n);
    }
    done = 1;
    for (;;) raw(SYS_getpid); /* wakes the other thread, which ends the program */
}
"#;

/// What the asker was told, as the golden file says it.
fn verdict(errno: &str) -> &str {
    match errno {
        "200" => "allow",
        "1" => "EPERM",
        "38" => "ENOSYS",
        "97" => "EAFNOSUPPORT",
        "201" => "not asked: the kernel ends the caller, whatever a filter says",
        other => panic!("errno {other}"),
    }
}

async fn ask(directory: &Path, profile: &str) -> String {
    let flags = ["--seccomp", profile, "--workspace", directory.to_str().unwrap()];
    let said = Run::new(&flags).command(&["./attack"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let mut lines = said.stdout.lines();
    assert_eq!(lines.next(), Some("ia32 0"), "a 32-bit call was answered");
    let mut golden = String::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [number, native, x32] = words[..] else { panic!("{line}") };
        // Whatever the number, the x32 interface is not there.
        assert_eq!(x32, "38", "x32 {line}");
        let number: u32 = number.parse().unwrap();
        let name = launch::seccomp::name(number).unwrap_or("-");
        // Beyond the table all is the same.
        if name != "-" || native != "38" {
            writeln!(golden, "{number:3} {name:24} {}", verdict(native)).unwrap();
        }
    }
    golden
}

#[tokio::test]
async fn b01_every_number_by_every_interface_is_answered_as_the_golden_file_says() {
    let directory = compiled(ASK).await;
    for profile in ["standard", "strict"] {
        let golden = ask(directory.path(), profile).await;
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/e2e/attack/golden/seccomp-{profile}.txt"));
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if golden != expected {
            let actual =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seccomp-{profile}.txt"));
            std::fs::write(&actual, &golden).unwrap();
            panic!("{} differs from what was answered: {}", file.display(), actual.display());
        }
    }
}
