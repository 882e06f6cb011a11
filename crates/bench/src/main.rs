use jail::*;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
fn start() -> Start {
    let a: Vec<String> = std::env::args().skip(1).collect();
    Start {
        command: Command {
            program: a[0].clone(),
            arguments: a[1..].to_vec(),
            environment: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        },
        stdin: Stdin::Empty,
        workspace: Tree::Fresh { bytes: 16 << 20, access: Access::ReadOnly },
        output: Tree::Fresh { bytes: 16 << 20, access: Access::ReadWrite },
        code: None,
        flavors: vec![],
        network: Network::default(),
        profile: Profile::Standard,
        limits: Limits {
            memory_bytes: 512 << 20,
            cpu_percent: 100,
            pids: 64,
            open_files: 4096,
            tmp_bytes: 100 << 20,
        },
        enforcement: Enforcement::Required,
    }
}
fn main() {
    if let Some(role) = Role::from_argv0() {
        std::process::exit(if run_launcher(&role) == std::process::ExitCode::SUCCESS {
            0
        } else {
            1
        });
    }
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let e = Engine::start(Config::of_this_program().unwrap()).await.unwrap();
        println!("{:?}", e.offers());
        let mut times = vec![];
        for i in 0..300 {
            let t = Instant::now();
            let mut r = match e.spawn(start()).await {
                Ok(r) => r,
                Err(x) => {
                    println!("{x}");
                    break;
                }
            };
            let ready = t.elapsed();
            let (mut o, mut er) = (String::new(), String::new());
            let (_, _, out) = tokio::join!(
                r.stdout.read_to_string(&mut o),
                r.stderr.read_to_string(&mut er),
                r.jail.wait(Duration::from_secs(10))
            );
            times.push((t.elapsed(), ready));
            if i == 0 {
                println!("{o}{er}{out:?} {:?}", r.enforced);
            }
        }
        times.sort();
        if !times.is_empty() {
            println!("p50 {:?} p95 {:?}", times[times.len() / 2], times[times.len() * 95 / 100]);
        }
        e.shutdown().await;
    });
}
