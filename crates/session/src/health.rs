//! Whether a silent client is still there: gRPC health checks over the session (`session/grpc.go`, `monitorHealth`).

use std::time::{Duration, Instant};

use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::metadata::MetadataMap;

use crate::call::CallError;
use crate::session::Session;

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// How often a client is asked, and when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthLimits {
    /// Between two checks.
    pub(crate) interval: Duration,
    /// For one answer; longer if the last one took longer, so that a slow line is not taken for a dead one.
    pub(crate) timeout: Duration,
    /// Unanswered checks in a row.
    pub(crate) failures_max: u32,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            failures_max: 2,
        }
    }
}

impl HealthLimits {
    /// What a client asks for with `X-Buildkit-Session-Health-Custom-Timeout` (milliseconds, at least a second).
    pub(crate) fn with_header(value: Option<&str>) -> Self {
        let Some(millis) = value.and_then(|v| v.parse::<u32>().ok()).filter(|ms| *ms > 0) else {
            return Self::default();
        };
        let limit = Duration::from_millis(millis.into()).max(Duration::from_secs(1));
        Self {
            interval: limit,
            timeout: limit,
            failures_max: 1,
        }
    }
}

/// Checks until the client is given up; then returns.
pub(crate) async fn watch(session: &Session, limits: HealthLimits) {
    let mut failures = 0;
    let mut last = Duration::ZERO;
    loop {
        tokio::time::sleep(limits.interval).await;
        let timeout = limits.timeout.max(last.mul_f64(1.5));
        let start = Instant::now();
        let answer: Result<HealthCheckResponse, CallError> = session
            .ask(
                METHOD,
                HealthCheckRequest::default(),
                MetadataMap::new(),
                Some(timeout),
            )
            .await;
        last = start.elapsed();
        match answer {
            // A client that says it has no such service is there.
            Ok(_) | Err(CallError::Unsupported { .. }) => failures = 0,
            Err(_) => failures += 1,
        }
        if failures >= limits.failures_max {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_ask_for_other_limits_but_not_for_absurd_ones() {
        assert_eq!(HealthLimits::with_header(None), HealthLimits::default());
        assert_eq!(HealthLimits::with_header(Some("x")), HealthLimits::default());
        assert_eq!(HealthLimits::with_header(Some("0")), HealthLimits::default());
        let asked = HealthLimits::with_header(Some("1500"));
        assert_eq!(asked.interval, Duration::from_millis(1500));
        assert_eq!(asked.failures_max, 1);
        assert_eq!(
            HealthLimits::with_header(Some("5")).timeout,
            Duration::from_secs(1)
        );
    }
}
