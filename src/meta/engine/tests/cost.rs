//! Requests that the engine costs: one a commit, few at the ends, none when idle.

use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;
use crate::store::MeterSnapshot;

fn counted(bucket: &Bucket, since: &MeterSnapshot, what: &str) -> u64 {
    let now = bucket.meter().snapshot();
    println!(
        "{what}: {} PUT, {} GET, {} HEAD, {} LIST, {} DELETE",
        now.puts - since.puts,
        now.gets - since.gets,
        now.heads - since.heads,
        now.lists - since.lists,
        now.deletes - since.deletes
    );
    now.requests() - since.requests()
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_exactly_one_put() {
    let bench = Bench::new();
    let bucket = bench.bucket();
    let engine = bench.open_as(&bucket, EngineMode::Writer, true).await.expect("opens");
    let before = bucket.meter().snapshot();
    for n in 0..200_u32 {
        let batch = (0..n % 50 + 1).map(|m| (format!("k{n}-{m}").into_bytes(), Some(vec![0; 100]))).collect();
        engine.write_durable(batch).await.expect("committed");
    }
    let after = bucket.meter().snapshot();
    assert_eq!(after.puts - before.puts, 200);
    assert_eq!(counted(&bucket, &before, "200 commits"), 200);
    engine.write_durable(Vec::new()).await.expect("nothing to do");
    assert_eq!(counted(&bucket, &after, "an empty commit"), 0);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_commits_cost_little_more_than_their_puts() {
    let bench = Bench::new();
    let bucket = bench.bucket();
    let engine = bench.open_as(&bucket, EngineMode::Writer, true).await.expect("opens");
    let before = bucket.meter().snapshot();
    for n in 0..4000_u32 {
        engine.write_durable(put(n.to_be_bytes(), [0; 200])).await.expect("committed");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let requests = counted(&bucket, &before, "4000 commits, one a second");
    let paid = requests - (bucket.meter().snapshot().deletes - before.deletes);
    assert!(paid < 4000 * 11 / 10, "{paid}");
    assert!(engine.tables().0 <= settings::NEWEST_TABLES_MERGED_AT, "{:?}", engine.tables());
}

#[tokio::test(start_paused = true)]
async fn however_long_garbage_takes_opening_after_a_crash_reads_few_logs() {
    let deletes =
        ThrottleConfig { wait_delete_per_call: Duration::from_secs(60), ..ThrottleConfig::default() };
    let bench = Bench::over(Arc::new(ThrottledStore::new(InMemory::new(), deletes)));
    let engine = bench.open_as(&bench.bucket(), EngineMode::Writer, true).await.expect("opens");
    for n in 0..3000_u32 {
        engine.write_durable(put(n.to_be_bytes(), [0; 200])).await.expect("committed");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(engine.tables().0 <= settings::NEWEST_TABLES_MERGED_AT, "{:?}", engine.tables());
    drop(engine);
    let bucket = bench.bucket();
    let before = bucket.meter().snapshot();
    let _engine = bench.open_as(&bucket, EngineMode::Writer, false).await.expect("opens");
    let requests = counted(&bucket, &before, "opening while garbage was being removed");
    // A log is asked for by its end and by its rows.
    assert!(requests < 3 * 256, "{requests}");
}

#[tokio::test(start_paused = true)]
async fn removing_garbage_and_merging_everything_keep_to_their_pace() {
    const PACE: Pace = Pace { bytes_per_second: 100_000, requests_per_second: 16 };
    const WINDOW_SECONDS: u64 = 10;
    // Of one table, which is one request.
    const TABLE_BYTES: u64 = 2_000_000;
    let bench = Bench::new();
    let bucket = bench.bucket();
    let engine = paced(&bench, &bucket, PACE).await;
    two_tables(&engine).await;
    let mut window = std::collections::VecDeque::from([bucket.meter().snapshot()]);
    let (mut merged_after, mut longest) = (None, (0, 0));
    for second in 1..3600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = bucket.meter().snapshot();
        let then = &window[window.len().saturating_sub(WINDOW_SECONDS as usize)];
        let bytes = now.put_bytes + now.get_bytes - then.put_bytes - then.get_bytes;
        let deletes = now.deletes - then.deletes;
        longest = (bytes.max(longest.0), deletes.max(longest.1));
        window.push_back(now);
        if engine.tables() == (0, 1) {
            merged_after.get_or_insert(second);
        }
    }
    let (deleted, left) = (bucket.meter().snapshot().deletes, bench.objects().await.len());
    println!(
        "merged after {merged_after:?} seconds; {deleted} deleted, {left} left; in ten seconds {longest:?}"
    );
    assert!(longest.0 <= TABLE_BYTES + WINDOW_SECONDS * PACE.bytes_per_second, "{} bytes", longest.0);
    assert!(longest.1 <= 1 + WINDOW_SECONDS * PACE.requests_per_second, "{} deletions", longest.1);
    let paced = upkeep::FIRST_COLLECTION.as_secs() + TABLE_BYTES / PACE.bytes_per_second;
    assert!(
        merged_after.is_some_and(|after| after >= paced),
        "what is merged was read and written by the pace"
    );
    assert!(deleted >= 500 && left < 30, "it gets on");
}

#[tokio::test(start_paused = true)]
async fn a_merge_of_everything_hurries_when_commits_are_to_become_a_table() {
    const PACE: Pace = Pace { bytes_per_second: 1, requests_per_second: 1 };
    let bench = Bench::new();
    let engine = paced(&bench, &bench.bucket(), PACE).await;
    two_tables(&engine).await;
    // It has begun, and at its pace would not end.
    tokio::time::sleep(upkeep::FIRST_COLLECTION + Duration::from_secs(10)).await;
    assert_eq!(engine.tables().1, 0);
    for n in 0..550_u32 {
        engine.write_durable(put(n.to_be_bytes(), "x")).await.expect("committed");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    drop(engine);
    let bucket = bench.bucket();
    let before = bucket.meter().snapshot();
    let _engine = bench.open_as(&bucket, EngineMode::Writer, false).await.expect("opens");
    let requests = counted(&bucket, &before, "opening while everything was being merged");
    assert!(requests < 400, "{requests}, and each log that is in no table is one");
}

async fn paced(bench: &Bench, bucket: &Bucket, pace: Pace) -> Engine {
    let options = EngineOptions { create: true, pace, ..EngineOptions::default() };
    let opening = Engine::open(Bench::sealed(bucket), EngineMode::Writer, options, bench.clock.clone());
    opening.await.expect("opens")
}

/// Of an equal size, so that all is merged once it is quiet.
async fn two_tables(engine: &Engine) {
    for n in 0..600_u32 {
        if n == 300 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        engine.write_durable(put(n.to_be_bytes(), [7; 3000])).await.expect("committed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_writer_is_silent() {
    let bench = Bench::new();
    let bucket = bench.bucket();
    let engine = bench.open_as(&bucket, EngineMode::Writer, true).await.expect("opens");
    for n in 0..50_u32 {
        engine.write_durable(put(n.to_be_bytes(), "x")).await.expect("committed");
    }
    let before = bucket.meter().snapshot();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let first = counted(&bucket, &before, "the first ten idle minutes");
    assert!(first <= 4 * 10, "{first}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let before = bucket.meter().snapshot();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let later = counted(&bucket, &before, "a later idle hour");
    assert!(later <= 10, "{later}");
}

/// Opens, commits, closes and reads on a store whose every request takes 100 ms; the time that passes
/// tells how many requests had to wait for one another.
#[tokio::test(start_paused = true)]
async fn opening_and_closing_take_few_requests_and_fewer_round_trips() {
    let trip = Duration::from_millis(100);
    let config = ThrottleConfig {
        wait_put_per_call: trip,
        wait_get_per_call: trip,
        wait_list_per_call: trip,
        wait_delete_per_call: trip,
        ..ThrottleConfig::default()
    };
    let bench = Bench::over(Arc::new(ThrottledStore::new(InMemory::new(), config)));
    let trips = |since: Instant| since.elapsed().as_millis() / trip.as_millis();
    for (session, open_trips_max) in ["fresh", "clean", "clean again"].into_iter().zip([9, 8, 8]) {
        let bucket = bench.bucket();
        let (before, started) = (bucket.meter().snapshot(), Instant::now());
        let engine = bench.open_as(&bucket, EngineMode::Writer, true).await.expect("opens");
        let open_trips = trips(started);
        let requests = counted(&bucket, &before, &format!("opening {session}, {open_trips} round trips"));
        assert!(requests <= 18 && open_trips <= open_trips_max, "{requests} {open_trips}");
        for n in 0..10_u8 {
            engine.write_durable(put([n], "x")).await.expect("committed");
        }
        let (before, started) = (bucket.meter().snapshot(), Instant::now());
        engine.close().await.expect("closes");
        let close_trips = trips(started);
        let requests = counted(&bucket, &before, &format!("closing {session}, {close_trips} round trips"));
        assert!(requests <= 5 && close_trips <= 5, "{requests} {close_trips}");
    }
    let bucket = bench.bucket();
    let engine = bench.open_as(&bucket, EngineMode::Writer, true).await.expect("opens");
    let (before, started) = (bucket.meter().snapshot(), Instant::now());
    engine.get(&[5]).await.expect("gets").expect("there");
    let requests = counted(&bucket, &before, &format!("a first cold get, {} round trips", trips(started)));
    assert!(requests <= 4, "{requests}");
    let before = bucket.meter().snapshot();
    engine.get(&[6]).await.expect("gets").expect("there");
    engine.get(b"absent").await.expect("gets");
    assert_eq!(counted(&bucket, &before, "two more"), 0);
    let before = bucket.meter().snapshot();
    engine.close().await.expect("closes");
    assert!(counted(&bucket, &before, "closing unused") <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_session_is_read_back_with_about_one_request_a_commit() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    for n in 0..100_u32 {
        engine.write_durable(put(n.to_be_bytes(), [0; 500])).await.expect("committed");
    }
    drop(engine);
    let bucket = bench.bucket();
    let before = bucket.meter().snapshot();
    let engine = bench.open_as(&bucket, EngineMode::Writer, false).await.expect("opens");
    let requests = counted(&bucket, &before, "opening after a crash with 100 commits");
    assert!(requests < 140, "{requests}");
    assert_eq!(all(&engine).await.expect("scans").len(), 100);
}

#[tokio::test(start_paused = true)]
async fn tables_stay_few_under_load() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    let mut most = 0;
    for n in 0..120_u32 {
        let batch = (0..2000_u32).map(|m| {
            let key = (n * 7919 + m * 104_729) % 100_000;
            (key.to_be_bytes().to_vec(), Some(vec![n as u8; 1000]))
        });
        engine.write_durable(batch.collect()).await.expect("committed");
        most = most.max(engine.tables().0);
    }
    println!("at most {most} tables of the newest level after 240 MB");
    assert!(most <= settings::NEWEST_TABLES_MAX, "{most}");
    tokio::time::sleep(Duration::from_secs(120)).await;
    engine.refresh().await.expect("refreshes");
    let (newest, runs) = engine.tables();
    assert!(newest < settings::NEWEST_TABLES_MERGED_AT && runs <= 8, "{newest} {runs}");
    engine.close().await.expect("closes");
}

#[tokio::test(start_paused = true)]
async fn garbage_does_not_pile_up() {
    let bench = Bench::new();
    for session in 0..3 {
        let engine = bench.writer().await;
        for n in 0..1500_u32 {
            engine.write_durable(put((n % 300).to_be_bytes(), [0; 100])).await.expect("committed");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        println!("{} objects after session {session}", bench.objects().await.len());
        tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        let left = bench.objects().await.len();
        println!("{left} objects two hours later");
        assert!(left < 60, "{left}");
        engine.close().await.expect("closes");
    }
    assert_eq!(all(&bench.writer().await).await.expect("scans").len(), 300);
}

/// A machine that restarts over and over, and is never up for as long as upkeep usually waits.
#[tokio::test(start_paused = true)]
async fn many_sessions_that_are_killed_soon_leave_few_objects_and_few_logs_to_read() {
    // The second begins and ends within minutes, in which nothing becomes garbage.
    for (sessions, commits, pause, objects_max) in
        [(150, 10, Duration::from_secs(5), 300), (20, 100, Duration::from_millis(50), usize::MAX)]
    {
        let bench = Bench::new();
        let (mut opening, mut objects) = (0, 0);
        for session in 0..sessions {
            let bucket = bench.bucket();
            let engine = bench.open_as(&bucket, EngineMode::Writer, true).await.expect("opens");
            opening = opening.max(bucket.meter().snapshot().requests());
            objects = objects.max(bench.objects().await.len() - session);
            for n in 0..commits {
                let key = (session * commits + n).to_be_bytes();
                engine.write_durable(put(key, "x")).await.expect("committed");
                tokio::time::sleep(pause).await;
            }
            drop(engine);
        }
        println!("{sessions} sessions of {commits} commits: {opening} requests to open, {objects} objects");
        assert_eq!(all(&bench.writer().await).await.expect("scans").len(), sessions * commits);
        assert!(opening < 400, "{opening} requests to open");
        assert!(objects < objects_max, "{objects} objects beside a fence for each session");
    }
}

#[tokio::test(start_paused = true)]
async fn many_short_sessions_leave_few_objects() {
    let bench = Bench::new();
    for session in 0..200_u32 {
        let engine = bench.writer().await;
        engine.write_durable(put(session.to_be_bytes(), "x")).await.expect("committed");
        engine.close().await.expect("closes");
        tokio::time::sleep(Duration::from_secs(1800)).await;
    }
    let left = bench.objects().await.len();
    println!("{left} objects after 200 sessions");
    assert!(left < 200 + 150, "{left}: a fence for each session, and little else");
    assert_eq!(all(&bench.writer().await).await.expect("scans").len(), 200);
}
