//! Tests of the ports that need no kernel.

use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;

use super::fault::{FaultPort, Faults, PerMillion};
use super::memory::MemoryPort;
use super::pcap::{CaptureError, CapturePort, Reader, Record, Writer};
use super::*;

fn pool(chunks: usize) -> Pool {
    Pool::new(chunks, false).expect("memory for a small pool")
}

mod frames {
    use super::*;

    #[test]
    fn every_chunk_is_in_one_place_and_none_is_handed_out_twice() {
        let mut pool = pool(8);
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((frames.len(), pool.free(), pool.held(), pool.lent()), (8, 0, 8, 0));
        for (index, frame) in frames.iter_mut().enumerate() {
            pool.memory().buffer(frame).fill(index as u8);
        }
        for (index, frame) in frames.iter_mut().enumerate() {
            assert!(pool.memory().buffer(frame).iter().all(|byte| *byte == index as u8));
        }
        let (address, _) = pool.lend(frames.pop().expect("eight frames"));
        assert_eq!((pool.free(), pool.held(), pool.lent()), (0, 7, 1));
        assert!(address < 8 * CHUNK as u64);
        for frame in frames {
            pool.put(frame);
        }
        assert_eq!((pool.free(), pool.held(), pool.lent()), (7, 0, 1));
    }

    #[test]
    fn extents_move_inside_the_chunk_and_bytes_follow() {
        let mut pool = pool(1);
        let mut frame = pool.copy_in(b"0123456789").expect("a frame");
        assert_eq!((frame.start(), frame.len()), (HEADROOM, 10));
        frame.set_extent(HEADROOM + 2, 3);
        assert_eq!(pool.memory().bytes(&frame), b"234");
        frame.set_extent(HEADROOM - 1, 2);
        pool.memory().bytes_mut(&mut frame).copy_from_slice(b"ab");
        frame.set_extent(HEADROOM - 1, 4);
        assert_eq!(pool.memory().bytes(&frame), b"ab12");
        frame.set_extent(0, CHUNK);
        assert_eq!(pool.memory().bytes(&frame).len(), CHUNK);
        frame.set_extent(CHUNK, 0);
        assert!(pool.memory().bytes(&frame).is_empty());
        pool.put(frame);
    }

    #[test]
    #[should_panic(expected = "leaves its chunk")]
    fn an_extent_outside_the_chunk_is_a_bug() {
        let mut frame = pool(1).take().expect("a frame");
        frame.set_extent(CHUNK - 1, 2);
    }

    #[test]
    #[should_panic(expected = "another pool")]
    fn a_frame_of_another_pool_is_refused() {
        let frame = pool(1).take().expect("a frame");
        pool(1).put(frame);
    }

    #[test]
    #[should_panic(expected = "another pool")]
    fn the_bytes_of_another_pool_are_refused() {
        let frame = pool(1).take().expect("a frame");
        let _bytes = pool(1).memory().bytes(&frame);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut pool = pool(1);
        assert!(pool.copy_in(&vec![0; MAX_FRAME + 1]).is_none());
        let frame = pool.copy_in(&vec![1; MAX_FRAME]).expect("it fits exactly");
        assert!(pool.copy_in(&[]).is_none(), "no chunk is left");
        pool.put(frame);
        assert!(matches!(Pool::new(0, false), Err(PoolError::Size { chunks: 0 })));
        assert!(matches!(Pool::new(Pool::MAX_CHUNKS + 1, false), Err(PoolError::Size { .. })));
    }

    #[test]
    fn huge_pages_fall_back_and_addresses_are_page_aligned() {
        let pool = Pool::new(512, true).expect("with or without huge pages");
        assert_eq!(pool.memory().area().address() % CHUNK as u64, 0);
        assert_eq!((pool.memory().size(), pool.total()), (512 * CHUNK, 512));
    }
}

mod captures {
    use super::*;

    const FRAMES: [(u64, &[u8]); 3] = [
        (1_700_000_000_000_000_001, &[1; 60]),
        (1_700_000_000_000_000_001, &[2; 1]),
        (1_700_000_001_999_999_999, &[3; 1514]),
    ];

    fn read(bytes: &[u8]) -> Result<Vec<(u64, Vec<u8>, u32)>, CaptureError> {
        let mut reader = Reader::new(Cursor::new(bytes.to_vec()), Path::new("test"))?;
        let mut records = Vec::new();
        while let Some(Record { at, bytes, wire_len }) = reader.next_record()? {
            records.push((at.0, bytes.to_vec(), wire_len));
        }
        Ok(records)
    }

    /// A pcap with the given magic's resolution, little or big endian.
    fn pcap(nanos: bool, big: bool, snaplen: u32, link: u32) -> Vec<u8> {
        let word = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let half = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut file = word(if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
        file.extend([half(2), half(4)].concat());
        file.extend([word(0), word(0), word(snaplen), word(link)].concat());
        for (at, bytes) in FRAMES {
            let fraction = (at % 1_000_000_000) as u32 / if nanos { 1 } else { 1000 };
            file.extend(word((at / 1_000_000_000) as u32));
            file.extend([word(fraction), word(bytes.len() as u32)].concat());
            file.extend(word(bytes.len() as u32 + 4));
            file.extend(bytes);
        }
        file
    }

    #[test]
    fn both_resolutions_and_byte_orders_of_pcap_are_read() {
        for (nanos, big) in [(false, false), (false, true), (true, false), (true, true)] {
            // A snap length of zero is written by some tools and means none.
            for snaplen in [0, 65_535] {
                let records = read(&pcap(nanos, big, snaplen, 1)).expect("it is a capture");
                assert_eq!(records.len(), 3);
                for (record, (at, bytes)) in records.iter().zip(FRAMES) {
                    let expected = if nanos { at } else { at / 1000 * 1000 };
                    assert_eq!((record.0, &record.1[..]), (expected, bytes));
                    assert_eq!(record.2 as usize, bytes.len() + 4, "length on the wire");
                }
            }
        }
    }

    /// One pcapng block.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (body.len().next_multiple_of(4) + 12) as u32;
        let mut block = [kind.to_le_bytes(), len.to_le_bytes()].concat();
        block.extend(body);
        block.resize(len as usize - 4, 0);
        block.extend(len.to_le_bytes());
        block
    }

    fn section() -> Vec<u8> {
        let mut body = 0x1a2b_3c4du32.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]);
        body.extend([0xff; 8]);
        block(0x0a0d_0d0a, &body)
    }

    /// An interface with a timestamp resolution and an offset in seconds.
    fn interface(link: u16, snaplen: u32, resolution: Option<u8>, offset: Option<u64>) -> Vec<u8> {
        let mut body = [link.to_le_bytes(), [0; 2]].concat();
        body.extend(snaplen.to_le_bytes());
        if let Some(value) = resolution {
            body.extend([9, 0, 1, 0, value, 0, 0, 0]);
        }
        if let Some(seconds) = offset {
            body.extend([14, 0, 8, 0]);
            body.extend(seconds.to_le_bytes());
        }
        if resolution.is_some() || offset.is_some() {
            body.extend([0; 4]);
        }
        block(1, &body)
    }

    fn enhanced(interface: u32, ticks: u64, bytes: &[u8]) -> Vec<u8> {
        let mut body = interface.to_le_bytes().to_vec();
        body.extend(((ticks >> 32) as u32).to_le_bytes());
        body.extend((ticks as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend(bytes);
        block(6, &body)
    }

    #[test]
    fn pcapng_timestamps_follow_each_interfaces_resolution() {
        let mut file = section();
        file.extend(interface(1, 0, None, None));
        file.extend(interface(1, 0, Some(9), None));
        file.extend(interface(1, 0, Some(3), Some(1_000)));
        file.extend(interface(1, 0, Some(0x80 | 10), None));
        file.extend(block(0x0bad, b"some other block"));
        for (index, ticks) in [(0, 5_000_001), (1, 5_000_000_001), (2, 5), (3, 1024 + 512)] {
            file.extend(enhanced(index, ticks, &[index as u8; 61]));
        }
        let times: Vec<_> = read(&file).expect("a capture").iter().map(|r| r.0).collect();
        assert_eq!(times, [5_000_001_000, 5_000_000_001, 1_000_005_000_000, 1_500_000_000]);
    }

    #[test]
    fn pcapng_simple_packets_lose_their_padding() {
        let mut file = section();
        file.extend(interface(1, 50, None, None));
        for len in [45u32, 1000] {
            let mut body = len.to_le_bytes().to_vec();
            body.resize(4 + len.min(50) as usize, 7);
            file.extend(block(3, &body));
        }
        let records = read(&file).expect("a capture");
        assert_eq!((records[0].1.len(), records[0].2), (45, 45));
        assert_eq!((records[1].1.len(), records[1].2), (50, 1000));
    }

    #[test]
    fn what_is_no_ethernet_capture_is_refused() {
        assert!(matches!(read(b""), Err(CaptureError::Format { .. })));
        assert!(matches!(read(b"*filter\nCOMMIT\n"), Err(CaptureError::Format { .. })));
        assert!(matches!(read(&pcap(true, false, 0, 1)[..20]), Err(CaptureError::Format { .. })));
        let link = read(&pcap(true, false, 0, 101));
        assert!(matches!(link, Err(CaptureError::LinkType { link_type: 101, .. })));
        let mut file = section();
        file.extend(interface(113, 0, None, None));
        file.extend(enhanced(0, 1, &[0; 60]));
        assert!(matches!(read(&file), Err(CaptureError::LinkType { link_type: 113, .. })));
        let mut file = section();
        file.extend(enhanced(0, 1, &[0; 60]));
        assert!(matches!(read(&file), Err(CaptureError::Record { number: 1, .. })));
        let mut file = section();
        file.extend(interface(1, 0, Some(0), Some(u64::MAX)));
        file.extend(enhanced(0, 1, &[0; 60]));
        assert!(matches!(read(&file), Err(CaptureError::Timestamp { number: 1, .. })));
        let missing = Reader::open(Path::new("/nonexistent/a.pcap"));
        assert!(matches!(missing, Err(CaptureError::File { .. })));
    }

    #[test]
    fn a_cut_record_is_named_by_its_number() {
        let whole = pcap(false, false, 0, 1);
        let error = read(&whole[..whole.len() - 1]).expect_err("the third is cut");
        assert!(matches!(error, CaptureError::Record { number: 3, .. }), "{error}");
        assert_eq!(read(&whole[..24 + 16 + 60]).expect("one record").len(), 1);
    }

    proptest! {
        #[test]
        fn damaged_captures_are_errors_never_panics(
            ng in any::<bool>(),
            cut in 0usize..2000,
            damage in prop::collection::vec((0usize..2000, any::<u8>()), 0..8),
        ) {
            let mut file = if ng {
                let mut file = section();
                file.extend(interface(1, 0, Some(9), Some(3)));
                for (at, bytes) in FRAMES {
                    file.extend(enhanced(0, at, bytes));
                }
                file
            } else {
                pcap(true, false, 65_535, 1)
            };
            file.truncate(cut);
            for (at, value) in damage {
                if let Some(byte) = file.get_mut(at) {
                    *byte = value;
                }
            }
            let _outcome = read(&file);
        }
    }

    #[test]
    fn a_port_receives_by_the_clock_and_writes_what_it_sends() {
        let path = std::env::temp_dir().join(format!("port-{}.pcap", std::process::id()));
        let mut pool = pool(4);
        let input = Cursor::new(pcap(true, false, 0, 1));
        let reader = Reader::new(input, Path::new("in")).expect("a capture");
        let writer = Writer::create(&path).expect("a file");
        let mut port = CapturePort::new(Some(reader), Some(writer));
        let mut burst = Burst::new();
        assert_eq!(port.next_arrival().expect("sound"), Some(Nanos(FRAMES[0].0)));
        let early = Nanos(FRAMES[0].0 - 1);
        assert_eq!(port.receive(&mut pool, early, &mut burst).expect("sound"), 0);
        let mut sent = Vec::new();
        while let Some(now) = port.next_arrival().expect("sound") {
            port.receive(&mut pool, now, &mut burst).expect("sound");
            for frame in burst.drain(..) {
                sent.push((now.0, pool.memory().bytes(&frame).to_vec()));
                port.transmit(&mut pool, frame).expect("always room");
            }
            port.flush(&mut pool, now).expect("it can be written");
        }
        port.finish().expect("it can be written");
        assert_eq!(pool.held(), 0);
        let expected: Vec<_> = FRAMES.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
        assert_eq!(sent, expected);
        let written = read(&std::fs::read(&path).expect("it was written")).expect("a capture");
        std::fs::remove_file(&path).expect("it is ours");
        let written: Vec<_> = written.into_iter().map(|(at, bytes, _)| (at, bytes)).collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn a_frame_longer_than_a_chunk_is_dropped_and_counted() {
        let mut file = section();
        file.extend(interface(1, 0, None, None));
        file.extend(enhanced(0, 1, &vec![1; MAX_FRAME + 1]));
        file.extend(enhanced(0, 2, &vec![2; MAX_FRAME]));
        let reader = Reader::new(Cursor::new(file), Path::new("in")).expect("a capture");
        let mut port = CapturePort::new(Some(reader), None);
        let (mut pool, mut burst) = (pool(4), Burst::new());
        port.receive(&mut pool, Nanos::SECOND, &mut burst).expect("sound");
        assert_eq!((burst.len(), port.statistics().rx_dropped), (1, 1));
        assert_eq!(pool.memory().bytes(&burst[0]), vec![2; MAX_FRAME]);
        for frame in burst.drain(..) {
            port.transmit(&mut pool, frame).expect("always room");
        }
        port.flush(&mut pool, Nanos::SECOND).expect("no writer, no error");
        assert_eq!(pool.held(), 0);
    }
}

mod faults {
    use super::*;

    const SOME: Faults = Faults {
        loss: PerMillion(50_000),
        duplication: PerMillion(50_000),
        reordering: PerMillion(50_000),
        corruption: PerMillion(50_000),
        truncation: PerMillion(50_000),
        delay: PerMillion(50_000),
        max_delay: Nanos::from_millis(5),
    };

    fn bytes(number: u16) -> Vec<u8> {
        let mut bytes = vec![0xaa; 60];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    type Run = (Vec<Vec<u8>>, super::super::fault::FaultCounts);

    /// Lets `count` frames arrive at a faulty port, a millisecond for each four.
    fn arrivals(seed: u64, faults: Faults, count: u16) -> Run {
        let mut pool = pool(1024);
        let mut port = FaultPort::new(MemoryPort::new(64), seed, faults, Faults::default());
        let (mut seen, mut number, mut now) = (Vec::new(), 0, Nanos::SECOND);
        while number < count || port.held() > 0 {
            for _ in 0..4.min(count - number) {
                assert!(port.inner_mut().inject(&mut pool, &bytes(number)));
                number += 1;
            }
            let mut burst = Burst::new();
            port.receive(&mut pool, now, &mut burst).expect("memory does not fail");
            for frame in burst.drain(..) {
                seen.push(pool.memory().bytes(&frame).to_vec());
                pool.put(frame);
            }
            now = now + Nanos::MILLISECOND;
        }
        assert_eq!(pool.held(), 0, "no frame is lost to the pool");
        (seen, port.counts().0)
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
        let first = arrivals(7, SOME, 5000);
        assert_eq!(first, arrivals(7, SOME, 5000));
        assert_ne!(first.0, arrivals(8, SOME, 5000).0);
    }

    #[test]
    fn every_fault_happens_about_as_often_as_asked() {
        let (seen, counts) = arrivals(1, SOME, 20_000);
        let about = |count: u64| (800..1200).contains(&count);
        assert!(about(counts.lost) && about(counts.duplicated), "{counts:?}");
        assert!(about(counts.corrupted) && about(counts.truncated), "{counts:?}");
        assert!(about(counts.reordered) && about(counts.delayed), "{counts:?}");
        assert_eq!(seen.len() as u64, 20_000 - counts.lost + counts.duplicated);
        let short = seen.iter().filter(|frame| frame.len() < 60).count() as u64;
        // A truncated frame may be duplicated after it was cut.
        assert!(short >= counts.truncated && short < counts.truncated * 12 / 10);
    }

    #[test]
    fn without_faults_nothing_changes() {
        let (seen, counts) = arrivals(3, Faults::default(), 1000);
        assert_eq!(seen, (0..1000).map(bytes).collect::<Vec<_>>());
        assert_eq!(counts, super::super::fault::FaultCounts::default());
    }

    #[test]
    fn each_fault_alone_does_what_it_says() {
        let all = PerMillion(1_000_000);
        let (seen, _) = arrivals(1, Faults { loss: all, ..Faults::default() }, 50);
        assert!(seen.is_empty());
        let (seen, _) = arrivals(1, Faults { duplication: all, ..Faults::default() }, 50);
        assert_eq!(seen.len(), 100);
        assert!(seen.chunks(2).all(|pair| pair[0] == pair[1]));
        let (seen, _) = arrivals(1, Faults { corruption: all, ..Faults::default() }, 50);
        for (number, frame) in seen.iter().enumerate() {
            let original = bytes(number as u16);
            let flipped: u32 = frame.iter().zip(&original).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(flipped, 1, "one bit of frame {number}");
        }
        let (seen, _) = arrivals(1, Faults { truncation: all, ..Faults::default() }, 50);
        assert!(seen.iter().all(|frame| frame.len() < 60));
        let half = PerMillion(500_000);
        let (seen, counts) = arrivals(1, Faults { reordering: half, ..Faults::default() }, 50);
        let mut sorted = seen.clone();
        sorted.sort();
        assert_eq!(sorted, (0..50).map(bytes).collect::<Vec<_>>());
        assert!(counts.reordered > 10 && seen != sorted);
        let delay = Faults { delay: half, max_delay: Nanos::SECOND, ..Faults::default() };
        let (seen, counts) = arrivals(1, delay, 50);
        assert!(counts.delayed > 10 && seen.len() == 50 && !seen.is_sorted());
    }

    #[test]
    fn transmitted_frames_meet_faults_and_none_is_lost_to_the_pool() {
        let mut pool = pool(512);
        let mut port = FaultPort::new(MemoryPort::new(512), 5, Faults::default(), SOME);
        let mut now = Nanos::SECOND;
        for number in 0..2000u16 {
            let frame = pool.copy_in(&bytes(number)).expect("a frame");
            port.transmit(&mut pool, frame).expect("there is room");
            if number % 16 == 15 {
                port.flush(&mut pool, now).expect("memory does not fail");
                port.inner_mut().collect(&mut pool);
                now = now + Nanos::MILLISECOND;
            }
        }
        for _ in 0..2 {
            port.flush(&mut pool, now + Nanos::SECOND).expect("memory does not fail");
            port.inner_mut().collect(&mut pool);
        }
        assert_eq!((port.held(), pool.held()), (0, 0));
        let counts = port.counts().1;
        assert!(counts.lost > 50 && counts.delayed > 50 && counts.reordered > 50, "{counts:?}");
        assert_eq!(port.description(), Description::Fault(Box::new(Description::Memory)));
    }

    #[test]
    fn held_frames_are_bounded() {
        let all = PerMillion(1_000_000);
        let forever = Faults { delay: all, max_delay: Nanos(u64::MAX / 2), ..Faults::default() };
        let (mut pool, mut burst) = (pool(1024), Burst::new());
        let mut port = FaultPort::new(MemoryPort::new(64), 5, forever, Faults::default());
        for number in 0..1000u16 {
            assert!(port.inner_mut().inject(&mut pool, &bytes(number)));
            port.receive(&mut pool, Nanos::SECOND, &mut burst).expect("memory does not fail");
            for frame in burst.drain(..) {
                pool.put(frame);
            }
        }
        assert_eq!(port.held(), super::super::fault::HELD_MAX);
        assert_eq!(pool.held(), super::super::fault::HELD_MAX);
    }
}
