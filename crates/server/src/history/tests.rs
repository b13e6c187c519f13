//! Records across a restart, their blobs, and what listeners are told.

use super::*;
use rbuild_store::OpenOptions;
use tonic::Code;

fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("store"), &OpenOptions::default()).unwrap()
}

async fn build(history: &History, id: &str) {
    history.begin(&SolveRequest {
        r#ref: id.to_owned(),
        ..SolveRequest::default()
    });
    let exported = Exported::default();
    history.end(id, Ok(&exported), &Arc::default()).await.unwrap();
}

async fn listed(history: &History, request: BuildHistoryRequest) -> Vec<String> {
    let stream = history.listen(request).await.unwrap();
    stream
        .filter_map(|event| std::future::ready(event.record.map(|record| record.r#ref)))
        .collect()
        .await
}

fn all() -> BuildHistoryRequest {
    BuildHistoryRequest {
        early_exit: true,
        ..BuildHistoryRequest::default()
    }
}

fn update(id: &str) -> UpdateBuildHistoryRequest {
    UpdateBuildHistoryRequest {
        r#ref: id.to_owned(),
        ..UpdateBuildHistoryRequest::default()
    }
}

fn delete(id: &str) -> UpdateBuildHistoryRequest {
    UpdateBuildHistoryRequest {
        delete: true,
        ..update(id)
    }
}

#[tokio::test]
async fn a_build_is_there_while_it_runs_when_it_ran_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::new(store(&dir), Limits::default());
    history.begin(&SolveRequest {
        r#ref: "one".to_owned(),
        ..SolveRequest::default()
    });
    let active = BuildHistoryRequest {
        active_only: true,
        ..all()
    };
    assert_eq!(listed(&history, active.clone()).await, ["one"]);
    assert!(history.logs("one").await.unwrap().is_none(), "it is not over");
    let status = Status::unknown("it failed");
    history.end("one", Err(&status), &Arc::default()).await.unwrap();
    assert!(listed(&history, active).await.is_empty());
    drop(history);
    let history = History::new(store(&dir), Limits::default());
    let records: Vec<BuildHistoryEvent> = history.listen(all()).await.unwrap().collect().await;
    let record = records[0].record.clone().unwrap();
    assert_eq!(record.error.unwrap().message, "it failed");
    assert!(history.logs("one").await.unwrap().is_some());
    assert_eq!(history.blobs().await.unwrap().len(), 3, "log, error, trace");
    history.update(delete("one")).await.unwrap();
    assert!(history.blobs().await.unwrap().is_empty());
    assert!(history.logs("one").await.unwrap().is_none());
}

#[tokio::test]
async fn the_oldest_that_is_not_pinned_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        entries_max: 2,
        ..Limits::default()
    };
    let history = History::new(store(&dir), limits);
    build(&history, "1").await;
    let pin = UpdateBuildHistoryRequest {
        pinned: true,
        ..update("1")
    };
    history.update(pin).await.unwrap();
    for id in ["2", "3", "4"] {
        build(&history, id).await;
    }
    let mut found = listed(&history, all()).await;
    found.sort();
    assert_eq!(found, ["1", "4"]);
    // Old and beyond the number that is always kept.
    let limits = Limits {
        entries: 1,
        age: Duration::ZERO,
        ..Limits::default()
    };
    let history = History::new(store(&dir), limits);
    history.update(update("1")).await.unwrap();
    build(&history, "5").await;
    assert_eq!(listed(&history, all()).await, ["5"]);
}

#[tokio::test]
async fn a_record_somebody_listens_to_is_hidden_at_once_and_goes_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::new(store(&dir), Limits::default());
    build(&history, "one").await;
    let request = BuildHistoryRequest {
        r#ref: "one".to_owned(),
        ..BuildHistoryRequest::default()
    };
    let mut listener = history.listen(request.clone()).await.unwrap();
    assert!(listener.next().await.is_some());
    let changes = BuildHistoryRequest {
        active_only: true,
        ..BuildHistoryRequest::default()
    };
    let mut changes = history.listen(changes).await.unwrap();
    history.update(delete("one")).await.unwrap();
    assert!(listed(&history, all()).await.is_empty());
    assert!(
        !history.blobs().await.unwrap().is_empty(),
        "what it was told of is still there"
    );
    assert_eq!(
        history.listen(request).await.err().unwrap().code(),
        Code::NotFound
    );
    drop(listener);
    let gone = changes.next().await.unwrap();
    assert_eq!(gone.r#type(), BuildHistoryEventType::Deleted);
    assert!(history.blobs().await.unwrap().is_empty());
}

#[tokio::test]
async fn limits_filters_and_names_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::new(store(&dir), Limits::default());
    for id in ["a1", "a2", "b1"] {
        build(&history, id).await;
    }
    let newest = BuildHistoryRequest { limit: 2, ..all() };
    assert_eq!(listed(&history, newest).await, ["b1", "a2"]);
    let filtered = BuildHistoryRequest {
        filter: vec!["ref~=^a,status==completed".to_owned()],
        limit: 5,
        ..all()
    };
    assert_eq!(listed(&history, filtered).await, ["a2", "a1"]);
    for refused in [
        BuildHistoryRequest { limit: -1, ..all() },
        BuildHistoryRequest {
            filter: vec!["ref+a".to_owned()],
            ..all()
        },
    ] {
        let refused = history.listen(refused).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    for request in [delete("c"), update("c"), delete("../a1")] {
        assert_eq!(history.update(request).await.unwrap_err().code(), Code::NotFound);
    }
    let finalize = UpdateBuildHistoryRequest {
        finalize: true,
        ..update("a1")
    };
    history.update(finalize).await.unwrap();
}
