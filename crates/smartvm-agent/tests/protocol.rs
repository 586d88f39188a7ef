//! The wire protocol against good, damaged and hostile bytes.

use proptest::prelude::*;
use smartvm_agent::protocol::{
    Accepted, Decoder, ErrorCode, Exec, Exit, Frame, Greeting, Kind, MAX_PAYLOAD, MAX_REQUEST,
    Operation, ProtocolError, Refusal, Request, Terminal, encode,
};

const KINDS: [Kind; 15] = [
    Kind::Greeting,
    Kind::Refusal,
    Kind::Accepted,
    Kind::Done,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Credit,
    Kind::Exit,
    Kind::Request,
    Kind::Stdin,
    Kind::StdinEnd,
    Kind::Signal,
    Kind::Resize,
    Kind::Data,
    Kind::DataEnd,
];

fn header(length: u32, kind: u8) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.push(kind);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, ProtocolError> {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    decoder.next_frame()
}

#[test]
fn every_kind_survives_the_wire() {
    for kind in KINDS {
        let mut bytes = Vec::new();
        encode(kind, b"payload", &mut bytes).expect("encoded");
        let frame = decode(&bytes).expect("sound").expect("whole");
        assert_eq!(
            (frame.kind, frame.payload.as_slice()),
            (kind, &b"payload"[..])
        );
    }
}

#[test]
fn a_kind_that_does_not_exist_is_refused_at_once() {
    let known: Vec<u8> = KINDS.iter().map(|kind| *kind as u8).collect();
    for kind in (0..=255).filter(|kind| !known.contains(kind)) {
        assert_eq!(
            decode(&header(0, kind)),
            Err(ProtocolError::UnknownKind(kind))
        );
    }
}

#[test]
fn an_oversized_frame_is_refused_by_its_header_alone() {
    for kind in KINDS {
        let limit = if kind == Kind::Request {
            MAX_REQUEST
        } else {
            MAX_PAYLOAD
        };
        let largest = u32::try_from(limit).expect("a small limit");
        assert_eq!(decode(&header(largest, kind as u8)), Ok(None));
        for length in [largest + 1, u32::MAX] {
            let error = decode(&header(length, kind as u8)).expect_err("too large");
            assert!(matches!(error, ProtocolError::TooLarge { .. }), "{error}");
        }
        let mut out = vec![1];
        assert!(encode(kind, &vec![0; limit + 1], &mut out).is_err());
        assert_eq!(out, [1], "nothing was written");
    }
}

#[test]
fn a_truncated_frame_is_not_taken_for_a_whole_one() {
    let mut bytes = Vec::new();
    encode(Kind::Stdout, b"four", &mut bytes).expect("encoded");
    for length in 0..bytes.len() {
        let mut decoder = Decoder::new();
        decoder.feed(&bytes[..length]);
        assert_eq!(decoder.next_frame(), Ok(None), "{length} bytes");
        let finished = decoder.finish();
        let expected = if length == 0 {
            Ok(())
        } else {
            Err(ProtocolError::Truncated)
        };
        assert_eq!(finished, expected, "{length} bytes");
    }
}

#[test]
fn an_error_stays_and_what_follows_is_forgotten() {
    let mut decoder = Decoder::new();
    decoder.feed(&header(0, 0));
    let first = decoder.next_frame();
    assert!(first.is_err());
    let mut sound = Vec::new();
    encode(Kind::Done, &[], &mut sound).expect("encoded");
    decoder.feed(&sound);
    assert_eq!(decoder.next_frame(), first);
    assert!(decoder.finish().is_err());
}

#[test]
fn payloads_of_another_shape_are_errors() {
    let frame = |kind, payload: &[u8]| Frame {
        kind,
        payload: payload.to_vec(),
    };
    for payload in [&b""[..], b"abc", b"abcde"] {
        assert!(frame(Kind::Credit, payload).credit().is_err());
        assert!(frame(Kind::Signal, payload).signal().is_err());
        assert!(frame(Kind::Resize, payload).size().is_err());
    }
    assert_eq!(frame(Kind::Signal, &[15, 0, 0, 0]).signal(), Ok(15));
    assert_eq!(frame(Kind::Resize, &[24, 0, 80, 1]).size(), Ok((24, 336)));
    for payload in [&b""[..], b"{", b"null", b"[]", b"{}", b"\xff\xfe"] {
        assert!(Greeting::decode(&frame(Kind::Greeting, payload)).is_err());
        assert!(Exit::decode(&frame(Kind::Exit, payload)).is_err());
    }
    let exit = frame(Kind::Exit, b"{\"code\":1}");
    assert_eq!(Exit::decode(&exit), Ok(Exit::Code(1)));
    assert_eq!(
        Greeting::decode(&exit),
        Err(ProtocolError::Unexpected(Kind::Exit))
    );
}

#[test]
fn a_request_has_the_documented_form() {
    let request = Request {
        version: 1,
        operation: Operation::Exec(Exec {
            argv: vec!["top".to_owned(), "-b".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            cwd: Some("/srv".into()),
            user: Some("ada:kvm".to_owned()),
            stdin: true,
            tty: Some(Terminal {
                rows: 24,
                cols: 80,
                term: "vt100".to_owned(),
            }),
        }),
    };
    let mut bytes = Vec::new();
    request.encode(&mut bytes).expect("encoded");
    let frame = decode(&bytes).expect("sound").expect("whole");
    let json: serde_json::Value = frame.json().expect("JSON");
    let documented = serde_json::json!({
        "version": 1,
        "operation": { "exec": {
            "argv": ["top", "-b"],
            "env": [["A", "b"]],
            "cwd": "/srv",
            "user": "ada:kvm",
            "stdin": true,
            "tty": { "rows": 24, "cols": 80, "term": "vt100" },
        }},
    });
    assert_eq!(json, documented);
    assert_eq!(Request::decode(&frame), Ok(request));
}

#[test]
fn the_answers_have_the_documented_form() {
    let json = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        let frame = decode(&bytes).expect("sound").expect("whole");
        String::from_utf8(frame.payload).expect("text")
    };
    let refusal = Refusal::new(ErrorCode::NoSuchUser, "no eve");
    let text = json(&|out| refusal.encode(out).expect("encoded"));
    assert_eq!(text, r#"{"code":"no-such-user","message":"no eve"}"#);
    let text = json(&|out| Exit::Signal(9).encode(out).expect("encoded"));
    assert_eq!(text, r#"{"signal":9}"#);
    let accepted = Accepted {
        pid: Some(7),
        ..Accepted::default()
    };
    let text = json(&|out| accepted.encode(out).expect("encoded"));
    assert_eq!(text, r#"{"pid":7}"#);
}

#[test]
fn a_later_agents_answers_are_understood_as_far_as_known() {
    let frame = |kind, payload: &[u8]| Frame {
        kind,
        payload: payload.to_vec(),
    };
    let greeting = br#"{"versions":[9,1],"agent":"9","bootId":"b","new":true}"#;
    let greeting = Greeting::decode(&frame(Kind::Greeting, greeting)).expect("understood");
    assert_eq!(greeting.versions, [9, 1]);
    let refusal = br#"{"code":"brand-new","message":"m"}"#;
    let refusal = Refusal::decode(&frame(Kind::Refusal, refusal)).expect("understood");
    assert_eq!(refusal.code, ErrorCode::Unknown);
}

/// Takes all frames until the bytes are used up or an error comes.
fn drain(decoder: &mut Decoder, frames: &mut Vec<Frame>) -> Option<ProtocolError> {
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

proptest! {
    #[test]
    fn frames_come_out_the_same_however_they_are_cut(
        payloads in prop::collection::vec((0..KINDS.len(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
        cuts in prop::collection::vec(1usize..100, 1..50),
    ) {
        let mut bytes = Vec::new();
        for (kind, payload) in &payloads {
            encode(KINDS[*kind], payload, &mut bytes).expect("encoded");
        }
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        let mut rest = bytes.as_slice();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = (*cuts.next().expect("endless")).min(rest.len());
            decoder.feed(&rest[..cut]);
            rest = &rest[cut..];
            prop_assert_eq!(drain(&mut decoder, &mut frames), None);
        }
        prop_assert_eq!(decoder.finish(), Ok(()));
        let found: Vec<_> = frames.into_iter().map(|frame| (frame.kind, frame.payload)).collect();
        let sent: Vec<_> = payloads.into_iter().map(|(kind, payload)| (KINDS[kind], payload)).collect();
        prop_assert_eq!(found, sent);
    }

    #[test]
    fn any_bytes_are_either_frames_or_an_error(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        for chunk in &chunks {
            decoder.feed(chunk);
            drain(&mut decoder, &mut frames);
        }
        let taken: usize = frames.iter().map(|frame| frame.payload.len() + 5).sum();
        prop_assert!(taken <= chunks.iter().map(Vec::len).sum());
        for frame in &frames {
            // Whatever is inside: readable or an error, never a panic.
            let _ = (frame.credit(), frame.signal(), frame.size());
            let _ = (Request::decode(frame), Greeting::decode(frame), Exit::decode(frame));
            let _ = (Refusal::decode(frame), Accepted::decode(frame));
        }
    }
}
