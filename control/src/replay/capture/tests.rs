//! Tests of capture files: resolutions, damage, round trip.

use super::*;

fn classic(magic: u32, link: u32, records: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [magic, 0x0004_0002, 0, 0, 65_535, link] {
        bytes.extend(word.to_le_bytes());
    }
    for (seconds, fraction, data) in records {
        for word in [*seconds, *fraction, data.len() as u32, data.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(*data);
    }
    bytes
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 + 12;
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), body, &length.to_le_bytes()].concat()
}

fn pcapng(link: u16, resolution: Option<u8>, units: u64) -> Vec<u8> {
    let section =
        [&0x1a2b_3c4d_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &u64::MAX.to_le_bytes()];
    let mut interface = [&u32::from(link).to_le_bytes()[..], &0_u32.to_le_bytes()].concat();
    if let Some(resolution) = resolution {
        interface.extend([9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
    }
    let packet = [
        &0_u32.to_le_bytes()[..],
        &((units >> 32) as u32).to_le_bytes(),
        &(units as u32).to_le_bytes(),
        &4_u32.to_le_bytes(),
        &4_u32.to_le_bytes(),
        &[1, 2, 3, 4],
    ];
    let blocks =
        [block(0x0a0d_0d0a, &section.concat()), block(1, &interface), block(6, &packet.concat())];
    blocks.concat()
}

fn read(bytes: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    parse(Path::new("x.pcap"), bytes)
}

#[test]
fn both_resolutions_of_pcap() {
    let micro = read(&classic(0xa1b2_c3d4, 1, &[(7, 5, b"ab")])).unwrap();
    assert_eq!(micro, [Frame { at: Nanos(7_000_005_000), bytes: b"ab".to_vec() }]);
    let nano = read(&classic(0xa1b2_3c4d, 1, &[(7, 5, b"ab")])).unwrap();
    assert_eq!(nano[0].at, Nanos(7_000_000_005));
}

#[test]
fn pcapng_timestamps_follow_the_interface() {
    let at = |resolution, units| read(&pcapng(1, resolution, units)).unwrap()[0].at;
    assert_eq!(at(None, 3_000_001), Nanos(3_000_001_000), "microseconds by default");
    assert_eq!(at(Some(9), 3_000_000_001), Nanos(3_000_000_001));
    assert_eq!(at(Some(0x80 | 10), 3 << 10 | 512), Nanos(3_500_000_000));
}

#[test]
fn damage_is_named_with_its_offset() {
    let good = classic(0xa1b2_c3d4, 1, &[(7, 5, b"ab"), (8, 5, b"cd")]);
    let cut = read(&good[..good.len() - 1]).unwrap_err();
    assert!(matches!(cut, CaptureError::Damaged { offset: 42, .. }), "{cut}");
    assert_eq!(cut.to_string(), "x.pcap: damaged at byte 42: Need more bytes");
    let odd_time = classic(0xa1b2_c3d4, 1, &[(7, 1_000_000, b"ab")]);
    assert!(matches!(read(&odd_time), Err(CaptureError::Damaged { offset: 24, .. })));
    let other = read(&classic(0xa1b2_c3d4, 113, &[])).unwrap_err();
    assert!(matches!(other, CaptureError::LinkType { link: DataLink::LINUX_SLL, .. }));
    assert!(matches!(read(&pcapng(113, None, 1)), Err(CaptureError::LinkType { .. })));
    assert!(matches!(read(b"hello"), Err(CaptureError::Damaged { offset: 0, .. })));
    let ng = pcapng(1, None, 1);
    for length in 0..ng.len() {
        let read = read(&ng[..length]);
        assert!(read.is_err() || read.unwrap().is_empty(), "cut at {length}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.write(Nanos(1_700_000_000_123_456_789), b"frame").unwrap();
    let bytes = writer.finish().unwrap();
    let frame = Frame { at: Nanos(1_700_000_000_123_456_789), bytes: b"frame".to_vec() };
    assert_eq!(read(&bytes).unwrap(), [frame]);
}
