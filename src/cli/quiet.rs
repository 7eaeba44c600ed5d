//! Keeps out of the log what libraries call an error and is none, or what our own line says better.

use std::fmt::Write;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Passes everything on but such lines.
pub(super) struct Quiet;

/// What a line is known by. Lines of the `log` crate have its target in a field.
#[derive(Default)]
struct Line {
    target: String,
    message: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => value.clone_into(&mut self.target),
            "message" => value.clone_into(&mut self.message),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        }
    }
}

impl Line {
    fn is_no_error(&self) -> bool {
        let is_of = |library: &str| self.target.split("::").next() == Some(library);
        // Another writer took over, of which the mount tells in a sentence. Why a log could not be written stands in the
        // line after it.
        let is_fenced =
            self.message.contains("error=Fenced") || self.message.starts_with("failed to flush WAL");
        // Whoever asked for the block is given the error, and tells it with what it was for. So is a merge that met damage.
        let passed_on =
            ["error getting block from cache", "WAL replay saw out-of-order seqs", "compaction job failed"];
        let is_passed_on = passed_on.iter().any(|words| self.message.starts_with(words));
        // Whoever made the request has been interrupted, or the mount is gone: the kernel does not know the request any more.
        let is_late = self.message.starts_with("Failed to send FUSE reply")
            && ["(os error 2)", "(os error 19)"].iter().any(|errno| self.message.ends_with(errno));
        is_of("slatedb") && (is_fenced || is_passed_on) || is_of("fuser") && is_late
    }
}

impl<S: Subscriber> Layer<S> for Quiet {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() != Level::ERROR || event.metadata().target().starts_with("coffer") {
            return true;
        }
        let mut line = Line { target: event.metadata().target().to_owned(), ..Line::default() };
        event.record(&mut line);
        !line.is_no_error()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_libraries_say_that_is_no_error_or_told_by_us_is_left_out_and_nothing_else() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines).with(Quiet), || {
            tracing::error!(target: "slatedb::wal::slatedb::writer", "failed to flush WAL [wal_id=5]");
            tracing::error!(target: "slatedb::dispatcher", "background task failed [name=a, error={:?}]", "Fenced");
            tracing::error!(target: "slatedb::dispatcher", "background task failed [name=a, error=Fenced, panic=None]");
            tracing::error!(target: "slatedb::db_cache", "error getting block from cache [block_type=filter error=E]");
            tracing::error!(target: "slatedb::compaction_worker", "compaction job failed [id=1, error=E]");
            let late = "Failed to send FUSE reply: No such file or directory (os error 2)";
            tracing::error!(target: "log", { log.target = "fuser::reply" }, "{late}");
            tracing::error!(target: "log", { log.target = "other" }, "{late} of another");
            tracing::error!(target: "log", { log.target = "fuser::reply" }, "Failed to send FUSE reply: wrong (os error 22)");
            tracing::error!(target: "coffer::vfs", "error=Fenced of ours");
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        let seen: Vec<&str> = text.lines().filter_map(|line| line.split("ERROR ").nth(1)).collect();
        assert_eq!(
            seen,
            [
                "slatedb::dispatcher: background task failed [name=a, error=\"Fenced\"]",
                "log: Failed to send FUSE reply: No such file or directory (os error 2) of another",
                "log: Failed to send FUSE reply: wrong (os error 22)",
                "coffer::vfs: error=Fenced of ours",
            ]
        );
    }
}
