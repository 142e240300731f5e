//! The hello against the words of `supervisor.proto`: framing, resynchronisation, authenticators.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::supervisor::v1::reject::Reason;

fn hello(nonce: u8) -> Frame {
    Frame::Hello(Hello {
        nonce: vec![nonce; KEY_BYTES].into(),
        gateway_id: "gw-test".into(),
        protocol_min: 1,
        protocol_max: 1,
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let bytes = vec(any::<u8>(), 0..64);
    prop_oneof![
        (bytes.clone(), ".{0,40}").prop_map(|(nonce, gateway_id)| Frame::Hello(Hello {
            nonce: nonce.into(),
            gateway_id,
            protocol_min: 1,
            protocol_max: 9,
        })),
        (bytes.clone(), bytes.clone(), any::<u64>()).prop_map(|(token, hmac, session)| {
            Frame::Welcome(Welcome {
                masked_next_token: token.into(),
                hmac: hmac.into(),
                protocol: 1,
                session,
            })
        }),
        bytes.prop_map(|nonce| Frame::Ready(Ready {
            nonce: nonce.into(),
            hmac: vec![7; 32].into()
        })),
        ".{0,40}".prop_map(|message| Frame::Reject(Reject {
            reason: Reason::BadToken as i32,
            message,
        })),
    ]
}

fn scan_all(scanner: &mut Scanner) -> Vec<Frame> {
    std::iter::from_fn(|| scanner.next_frame()).collect()
}

#[test]
fn the_magic_is_the_contracts() {
    assert_eq!(MAGIC, [0x00, 0x43, 0x44, 0x48, 0x45, 0x4C, 0x4F, 0x31]);
    let bytes = Frame::Ready(Ready::default()).encode().expect("short");
    assert_eq!(bytes.len(), 8 + 1 + 4 + 4);
    assert_eq!(bytes[8..13], [4, 0, 0, 0, 0]);
}

#[test]
fn a_frame_that_is_too_long_is_not_encoded() {
    let long = Frame::Reject(Reject {
        reason: 1,
        message: "x".repeat(BODY_BYTES_MAX),
    });
    assert_eq!(long.encode(), None);
}

#[test]
fn what_follows_the_last_frame_is_handed_on() {
    let mut scanner = Scanner::new();
    scanner.push(&hello(1).encode().expect("short"));
    scanner.push(b"PRI * HTTP/2.0");
    assert_eq!(scanner.next_frame(), Some(hello(1)));
    assert_eq!(scanner.into_rest(), b"PRI * HTTP/2.0");
}

#[test]
fn a_damaged_length_does_not_hide_the_next_frame() {
    let mut damaged = hello(1).encode().expect("short");
    damaged[11] = 0x0f;
    let mut scanner = Scanner::new();
    scanner.push(&damaged);
    scanner.push(&hello(2).encode().expect("short"));
    assert_eq!(scanner.next_frame(), Some(hello(2)));
}

#[test]
fn the_buffer_of_a_scanner_is_bounded() {
    let mut scanner = Scanner::new();
    let mut endless = MAGIC.to_vec();
    endless.extend_from_slice(&[1, 0, 0, 0x10, 0]);
    for _ in 0..10_000 {
        scanner.push(&endless);
        scanner.push(&[0; 100]);
        assert_eq!(scanner.next_frame(), None);
        assert!(scanner.buffer.len() <= HEAD_BYTES + BODY_BYTES_MAX + CRC_BYTES + 200);
    }
}

#[test]
fn authenticators_differ_by_purpose_and_key() {
    let (token, next, nonce, boot) = ([1; 32], [2; 32], [3; 32], [4; 16]);
    let all = [
        reply_mac(&token, &nonce, &boot, "sbx-a"),
        reply_mac(&token, &nonce, &boot, "sbx-b"),
        reply_mac(&next, &nonce, &boot, "sbx-a"),
        welcome_mac(&token, &nonce, &next),
        ready_mac(&token, &nonce),
        mask(&token, &nonce, &[0; 32]),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(same_mac(one, one));
        assert!(all[index + 1..].iter().all(|other| !same_mac(one, other)));
    }
    assert!(!same_mac(&all[0], &all[0][..31]));
}

#[test]
fn the_mask_hides_and_reveals() {
    let (token, next, nonce) = ([1; 32], [2; 32], [3; 32]);
    let masked = mask(&token, &nonce, &next);
    assert_ne!(masked, next);
    assert_eq!(mask(&token, &nonce, &masked), next);
}

#[test]
fn the_highest_common_protocol_is_chosen() {
    assert_eq!(common_protocol(1..=3, 2..=5), Some(3));
    assert_eq!(common_protocol(1..=1, 1..=9), Some(1));
    assert_eq!(common_protocol(1..=2, 3..=4), None);
    assert_eq!(common_protocol(3..=4, 1..=2), None);
}

proptest! {
    #[test]
    fn frames_survive_any_cutting(frames in vec(any_frame(), 1..6), cut in 1usize..40) {
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.encode().expect("short")).collect();
        let mut scanner = Scanner::new();
        let mut found = Vec::new();
        for piece in bytes.chunks(cut) {
            scanner.push(piece);
            found.extend(scan_all(&mut scanner));
        }
        prop_assert_eq!(found, frames);
        prop_assert_eq!(scanner.skipped_bytes(), 0);
    }

    #[test]
    fn a_frame_is_found_behind_any_garbage(
        garbage in vec(prop_oneof![Just(0u8), any::<u8>(), Just(b'C')], 0..300),
        stale in 0usize..60,
        cut in 1usize..50,
    ) {
        let mut bytes = garbage;
        // The end of a frame whose beginning was lost, and the beginning of one whose end was.
        let whole = hello(9).encode().expect("short");
        bytes.extend_from_slice(&whole[whole.len() - stale.min(whole.len())..]);
        bytes.extend_from_slice(&whole[..stale.min(whole.len() - 1)]);
        bytes.extend_from_slice(&hello(1).encode().expect("short"));
        let mut scanner = Scanner::new();
        let mut found = Vec::new();
        for piece in bytes.chunks(cut) {
            scanner.push(piece);
            found.extend(scan_all(&mut scanner));
        }
        prop_assert_eq!(found.last(), Some(&hello(1)));
    }

    #[test]
    fn one_changed_byte_is_noticed(frame in any_frame(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = frame.encode().expect("short");
        let index = at.index(bytes.len());
        bytes[index] ^= flip;
        let mut scanner = Scanner::new();
        scanner.push(&bytes);
        prop_assert_eq!(scanner.next_frame(), None);
    }
}
