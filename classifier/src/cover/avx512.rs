//! A burst of lookups with AVX-512: every table of a key in one vector, sixteen
//! rules of the tail in another.
//!
//! Three passes over the burst, so that memory is asked for before it is needed:
//! hash and prefetch entries; read entries, drop those that cannot match,
//! prefetch the best leaf; compare leaves, best first. The answers are those of
//! [`super::scalar`], from the same layout.

#![allow(unsafe_code, reason = "x86 intrinsics that read memory")]
#![allow(clippy::needless_range_loop, reason = "sides and words number several columns at once")]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::lanes::{Column, Lanes, PORTS_TURN, TURNS, WINDOWS, WORDS, Words, word_count};
use super::leaf::{BLOCK, Block, NOWHERE};
use super::sign::Signs;
use super::tail::Row;
use super::{BATCH, CoverTables, Entry, MAX_TABLES, PRIO_SHIFT, TAG_SHIFT};
use crate::{Address, Key};

/// Whether this machine has what [`answer`] needs.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("bmi1")
}

/// The lowest positions at or after `from` whose rules match, for at most
/// [`BATCH`] keys. Only where [`available`].
#[inline]
pub(super) fn answer<A: Address>(
    tables: &CoverTables<A>,
    keys: &[Key<A>],
    from: u32,
    firsts: &mut [u32],
) {
    if let ([key], [first]) = (keys, &mut *firsts) {
        let one = match (from > 0, tables.signed) {
            (false, false) => one::<A, false, false>,
            (false, true) => one::<A, false, true>,
            (true, false) => one::<A, true, false>,
            (true, true) => one::<A, true, true>,
        };
        // SAFETY: `CoverTables` lets this level in only where `available`.
        *first = unsafe { one(tables, key, from) };
        return;
    }
    let burst = match (from > 0, tables.signed) {
        (false, false) => burst::<A, false, false>,
        (false, true) => burst::<A, false, true>,
        (true, false) => burst::<A, true, false>,
        (true, true) => burst::<A, true, true>,
    };
    // SAFETY: `CoverTables` lets this level in only where `available`.
    unsafe { burst(tables, keys, from, firsts) }
}

/// What the first pass leaves for one key.
#[derive(Clone, Copy)]
struct Asked {
    hash: __m512i,
    windows: __m512i,
    wanted: __m512i,
}

/// What the second pass leaves: entries that may match, all ones elsewhere.
#[derive(Clone, Copy)]
struct Found {
    low: __m512i,
    high: __m512i,
    least: u64,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi1")]
fn burst<A: Address, const RESUME: bool, const SIGNED: bool>(
    tables: &CoverTables<A>,
    keys: &[Key<A>],
    from: u32,
    firsts: &mut [u32],
) {
    assert!(keys.len() <= BATCH);
    let mut asked = [const { MaybeUninit::<Asked>::uninit() }; BATCH];
    let mut found = [const { MaybeUninit::<Found>::uninit() }; BATCH];
    for (asked, key) in asked.iter_mut().zip(keys) {
        let asked = asked.write(ask::<A, SIGNED>(tables, key));
        prefetch_entries(tables, slots(tables, asked));
    }
    for (found, asked) in found.iter_mut().zip(&asked).take(keys.len()) {
        // SAFETY: the loop before wrote as many as there are keys.
        let asked = unsafe { asked.assume_init_ref() };
        let found = found.write(read::<A, SIGNED>(tables, asked));
        prefetch_leaf(&tables.blocks, Entry::blocks(found.least));
    }
    for ((key, found), first) in keys.iter().zip(&found).zip(firsts) {
        // SAFETY: the loop before wrote as many as there are keys.
        let found = unsafe { found.assume_init_ref() };
        *first = compare::<A, RESUME>(tables, key, from, found);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi1")]
fn one<A: Address, const RESUME: bool, const SIGNED: bool>(
    tables: &CoverTables<A>,
    key: &Key<A>,
    from: u32,
) -> u32 {
    let found = read::<A, SIGNED>(tables, &ask::<A, SIGNED>(tables, key));
    compare::<A, RESUME>(tables, key, from, &found)
}

/// Hashes a key for all tables.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi1")]
fn ask<A: Address, const SIGNED: bool>(tables: &CoverTables<A>, key: &Key<A>) -> Asked {
    let lanes = &*tables.lanes;
    let words = Words::of(key);
    let hash = hash::<A>(lanes, &words);
    if !SIGNED {
        return Asked { hash, windows: hash, wanted: hash };
    }
    let [first, second, third] = windows::<A>(lanes, &words);
    let wanted = _mm512_set1_epi32(tables.signs.wanted(key) as i32);
    let dport = _mm512_set1_epi32(1 << dport_class(&tables.signs, key.dport));
    Asked {
        hash,
        windows: _mm512_or_si512(first, _mm512_slli_epi32::<16>(second)),
        wanted: _mm512_or_si512(wanted, _mm512_mask_mov_epi32(dport, lanes.third, third)),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn slots<A>(tables: &CoverTables<A>, asked: &Asked) -> __m512i {
    let lanes = &*tables.lanes;
    _mm512_add_epi32(_mm512_srlv_epi32(asked.hash, column(&lanes.shift)), column(&lanes.base))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn hash<A: Address>(lanes: &Lanes, words: &Words) -> __m512i {
    let mut hash = column(&lanes.salt);
    for side in 0..2 {
        for word in 0..word_count::<A>() {
            let own = _mm512_set1_epi32(words.addresses[side][word] as i32);
            let kept = _mm512_and_si512(own, column(&lanes.masks[side][word]));
            let product = _mm512_mullo_epi32(kept, column(&lanes.factors[side][word]));
            let turn = _mm512_set1_epi32(TURNS[side][word] as i32);
            hash = _mm512_xor_si512(hash, _mm512_rolv_epi32(product, turn));
        }
    }
    let ports = _mm512_set1_epi32(words.ports as i32);
    let ports = _mm512_and_si512(ports, column(&lanes.ports));
    let ports = _mm512_mullo_epi32(ports, column(&lanes.ports_factor));
    hash = _mm512_xor_si512(hash, _mm512_rol_epi32::<{ PORTS_TURN as i32 }>(ports));
    hash = _mm512_xor_si512(hash, _mm512_srli_epi32::<15>(hash));
    _mm512_mullo_epi32(hash, column(&lanes.last_factor))
}

/// The bit of each table's windows that the key selects.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn windows<A: Address>(lanes: &Lanes, words: &Words) -> [__m512i; WINDOWS] {
    let set = |at: [u32; 4]| _mm_set_epi32(at[3] as i32, at[2] as i32, at[1] as i32, at[0] as i32);
    let all = match word_count::<A>() {
        1 => {
            let [src, dst] = words.addresses;
            _mm512_castsi128_si512(set([src[0], dst[0], words.ports, 0]))
        }
        _ => {
            let [src, dst] = words.addresses;
            let all = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(set(src)), set(dst));
            _mm512_inserti32x4::<2>(all, _mm_cvtsi32_si128(words.ports as i32))
        }
    };
    [0, 1, 2].map(|window| {
        let word = _mm512_permutexvar_epi32(column(&lanes.window_word[window]), all);
        let value = _mm512_srlv_epi32(word, column(&lanes.window_shift[window]));
        _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_and_si512(value, _mm512_set1_epi32(0xf)))
    })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn dport_class(signs: &Signs, port: u16) -> u32 {
    let limits = load256(&signs.dport);
    _mm256_cmpgt_epu16_mask(_mm256_set1_epi16(port as i16), limits).count_ones()
}

/// Reads all entries of a key; keeps those whose tag and signature it has.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn read<A: Address, const SIGNED: bool>(tables: &CoverTables<A>, asked: &Asked) -> Found {
    let count = tables.tables.len();
    let slots = slots(tables, asked);
    let byte = _mm512_and_si512(asked.hash, _mm512_set1_epi32(0xff));
    let tags = _mm512_max_epu32(byte, _mm512_set1_epi32(1));
    let pairs = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    let wanted = _mm512_permutex2var_epi32(asked.wanted, pairs, asked.windows);
    let (low_slots, low_tags) = (_mm512_castsi512_si256(slots), _mm512_castsi512_si256(tags));
    let low =
        kept::<SIGNED>(&tables.entries, low_slots, low_tags, wanted, (1_u32 << count.min(8)) - 1);
    let (mut high, mut least) = (_mm512_set1_epi64(-1), low);
    if count > 8 {
        let pairs = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
        let wanted = _mm512_permutex2var_epi32(asked.wanted, pairs, asked.windows);
        let high_slots = _mm512_extracti64x4_epi64::<1>(slots);
        let high_tags = _mm512_extracti64x4_epi64::<1>(tags);
        high = kept::<SIGNED>(
            &tables.entries,
            high_slots,
            high_tags,
            wanted,
            (1_u32 << (count - 8)) - 1,
        );
        least = _mm512_min_epu64(least, high);
    }
    Found { low, high, least: _mm512_reduce_min_epu64(least) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn kept<const SIGNED: bool>(
    entries: &[Entry],
    slots: __m256i,
    tags: __m256i,
    wanted: __m512i,
    tables: u32,
) -> __m512i {
    let [meta, sign] = gather::<SIGNED>(entries, slots, tables as __mmask8);
    let tag = _mm512_and_si512(meta, _mm512_set1_epi64(0xff << TAG_SHIFT));
    let own = _mm512_slli_epi64::<TAG_SHIFT>(_mm512_cvtepu32_epi64(tags));
    let tagged = _mm512_cmpeq_epi64_mask(tag, own) | _mm512_testn_epi64_mask(tag, tag);
    let lacks = _mm512_andnot_si512(sign, wanted);
    let kept = match SIGNED {
        true => _mm512_mask_testn_epi64_mask(tagged, lacks, lacks),
        false => tagged,
    };
    _mm512_mask_mov_epi64(_mm512_set1_epi64(-1), kept, meta)
}

/// Compares leaves, best first, then the tail.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi1")]
fn compare<A: Address, const RESUME: bool>(
    tables: &CoverTables<A>,
    key: &Key<A>,
    from: u32,
    found: &Found,
) -> u32 {
    let places = tables.places();
    let (mut best, mut entry) = (NOWHERE, found.least);
    while entry != u64::MAX {
        // Two blocks at once: whether the first one has it, nobody can guess.
        for pair in tables.blocks[Entry::blocks(entry)].chunks(2) {
            let hits = block_hits(&pair[0], key) | block_hits(&pair[pair.len() - 1], key) << BLOCK;
            if hits != 0 {
                if RESUME {
                    best = best.min(places.next(pair, hits, key, from));
                } else {
                    let first = places.first(pair, hits, key);
                    if first != NOWHERE {
                        best = best.min(first);
                        break;
                    }
                }
            }
        }
        // The least entry behind this one that still beats the match.
        let none = _mm512_set1_epi64(-1);
        let seen = _mm512_set1_epi64(entry as i64);
        let low = _mm512_mask_mov_epi64(none, _mm512_cmpgt_epu64_mask(found.low, seen), found.low);
        let high =
            _mm512_mask_mov_epi64(none, _mm512_cmpgt_epu64_mask(found.high, seen), found.high);
        let left = _mm512_min_epu64(low, high);
        // Without a match the limit is above every entry and below "none".
        let limit = _mm512_set1_epi64((u64::from(best) << PRIO_SHIFT) as i64);
        if _mm512_cmplt_epu64_mask(left, limit) == 0 {
            break;
        }
        entry = _mm512_reduce_min_epu64(left);
    }
    compare_tail::<A>(tables, key, from, best)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi1")]
fn compare_tail<A: Address>(tables: &CoverTables<A>, key: &Key<A>, from: u32, best: u32) -> u32 {
    let tail = &tables.tail;
    let mut best = best;
    let begin = tail.begin(from);
    if tail.spans.get(begin).is_none_or(|span| span.0 >= best) {
        return best;
    }
    let words = Words::of(key);
    for (row, span) in tail.rows.iter().zip(&tail.spans).skip(begin) {
        if span.0 >= best {
            break;
        }
        let hits = row_hits::<A>(row, &words, key.proto);
        if hits != 0 {
            best = best.min(row.next(hits, key, from, &tables.places()));
        }
    }
    best
}

/// The lanes of a block whose addresses, ports and protocol the key has.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn block_hits<A: Address>(block: &Block<A>, key: &Key<A>) -> u32 {
    let ports = u32::from(key.sport) << 16 | u32::from(key.dport);
    let offset = _mm_sub_epi16(_mm_set1_epi32(ports as i32), load128(&block.ports_low));
    let span = load128(&block.ports_span);
    let in_range = _mm_cmpeq_epi32_mask(_mm_max_epu16(offset, span), span);
    let small = load128(&block.small);
    let proto = _mm_and_si128(_mm_set1_epi32(i32::from(key.proto)), _mm_srli_epi32::<8>(small));
    let proto = _mm_and_si128(_mm_xor_si128(proto, small), _mm_set1_epi32(0xff));
    if A::BITS == 32 {
        let side = |key: A, value: &[A; BLOCK], mask: &[A; BLOCK]| {
            let key = _mm_set1_epi32(key.to_u128() as i32);
            let kept = _mm_and_si128(key, load_narrow(mask));
            _mm_xor_si128(kept, load_narrow(value))
        };
        let wrong = _mm_or_si128(
            side(key.src, &block.src, &block.src_mask),
            side(key.dst, &block.dst, &block.dst_mask),
        );
        let wrong = _mm_or_si128(wrong, proto);
        u32::from(_mm_mask_testn_epi32_mask(in_range, wrong, wrong))
    } else {
        let side = |key: A, value: &[A; BLOCK], mask: &[A; BLOCK]| {
            let key = key.to_u128();
            let key = _mm_set_epi64x((key >> 64) as i64, key as i64);
            let kept = _mm512_and_si512(_mm512_broadcast_i32x4(key), load_wide(mask));
            _mm512_xor_si512(kept, load_wide(value))
        };
        let wrong = _mm512_or_si512(
            side(key.src, &block.src, &block.src_mask),
            side(key.dst, &block.dst, &block.dst_mask),
        );
        // Both halves of an address: fold each pair of 64-bit lanes into its first.
        let wrong = _mm512_or_si512(wrong, _mm512_shuffle_epi32::<0b01_00_11_10>(wrong));
        let wrong = _mm512_maskz_compress_epi64(0b0101_0101, wrong);
        let right =
            _mm256_testn_epi64_mask(_mm512_castsi512_si256(wrong), _mm512_castsi512_si256(wrong));
        u32::from(_mm_mask_testn_epi32_mask(in_range & right, proto, proto))
    }
}

/// The same of a row of the tail.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn row_hits<A: Address>(row: &Row, words: &Words, proto: u8) -> u32 {
    let small = load512(&row.small);
    let own = _mm512_and_si512(_mm512_set1_epi32(i32::from(proto)), _mm512_srli_epi32::<8>(small));
    let mut wrong = _mm512_and_si512(_mm512_xor_si512(own, small), _mm512_set1_epi32(0xff));
    for side in 0..2 {
        for word in 0..word_count::<A>().min(WORDS) {
            let own = _mm512_set1_epi32(words.addresses[side][word] as i32);
            let kept = _mm512_and_si512(own, load512(&row.masks[side][word]));
            let differs = _mm512_xor_si512(kept, load512(&row.values[side][word]));
            wrong = _mm512_or_si512(wrong, differs);
        }
    }
    let offset = _mm512_sub_epi16(_mm512_set1_epi32(words.ports as i32), load512(&row.ports_low));
    let span = load512(&row.ports_span);
    let in_range = _mm512_cmpeq_epi32_mask(_mm512_max_epu16(offset, span), span);
    u32::from(_mm512_mask_testn_epi32_mask(in_range, wrong, wrong))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn column(column: &Column) -> __m512i {
    load512(&column.0)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load512(from: &[u32; MAX_TABLES]) -> __m512i {
    // SAFETY: 64 bytes behind a reference; any alignment will do.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load256(from: &[u16; 16]) -> __m256i {
    // SAFETY: 32 bytes behind a reference; any alignment will do.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn load128(from: &[u32; BLOCK]) -> __m128i {
    // SAFETY: 16 bytes behind a reference; any alignment will do.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Four 32-bit addresses.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_narrow<A>(from: &[A; BLOCK]) -> __m128i {
    const { assert!(size_of::<[A; BLOCK]>() >= 16) };
    // SAFETY: at least 16 bytes behind a reference, asserted above; any alignment will do.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Four 128-bit addresses.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_wide<A>(from: &[A; BLOCK]) -> __m512i {
    assert!(size_of::<[A; BLOCK]>() >= 64);
    // SAFETY: at least 64 bytes behind a reference, asserted above; any alignment will do.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// The two halves of eight entries; all ones and zeros where `tables` has no bit.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn gather<const SIGNED: bool>(entries: &[Entry], slots: __m256i, tables: __mmask8) -> [__m512i; 2] {
    let len = _mm256_set1_epi32(entries.len().min(1 << 29) as i32);
    let inside = _mm256_mask_cmplt_epu32_mask(tables, slots, len);
    // An entry is 16 bytes, the scale of an index at most 8.
    let at = _mm256_slli_epi32::<1>(slots);
    let (none, zero) = (_mm512_set1_epi64(-1), _mm512_setzero_si512());
    let start = entries.as_ptr().cast::<i64>();
    // SAFETY: lanes in `inside` read the first half of an entry that exists.
    let meta = unsafe { _mm512_mask_i32gather_epi64::<8>(none, inside, at, start) };
    if !SIGNED {
        return [meta, zero];
    }
    let second = start.wrapping_add(1);
    // SAFETY: lanes in `inside` read the second half of an entry that exists.
    let sign = unsafe { _mm512_mask_i32gather_epi64::<8>(zero, inside, at, second) };
    [meta, sign]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_entries<A>(tables: &CoverTables<A>, slots: __m512i) {
    let mut at = Column::ZERO;
    // SAFETY: 64 bytes behind a reference; any alignment will do.
    unsafe { _mm512_storeu_si512(at.0.as_mut_ptr().cast(), slots) };
    for &slot in &at.0[..tables.tables.len().min(MAX_TABLES)] {
        let entry = tables.entries.as_ptr().wrapping_add(slot as usize);
        _mm_prefetch::<_MM_HINT_T0>(entry.cast());
    }
}

/// The first two blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_leaf<A>(blocks: &[Block<A>], leaf: std::ops::Range<usize>) {
    for number in [leaf.start, (leaf.start + 1).min(leaf.end - 1)] {
        let block = blocks.as_ptr().wrapping_add(number).cast::<i8>();
        for line in 0..size_of::<Block<A>>() / 64 {
            _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(line * 64));
        }
    }
}
