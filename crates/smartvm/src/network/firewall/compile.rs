//! From ordered rules to a few maps: what a packet costs doesn't grow with the rules.
//!
//! Each rule becomes boxes of addresses and services, gathered in groups. The boxes of one
//! group don't overlap, so that one look into a map finds the only one that can match; the
//! groups are looked at in order. A rule gives up what an earlier, as broad or broader one
//! takes from it, and goes behind the groups of earlier, narrower ones that it overlaps. As
//! networks are nested or apart, that makes one group for each level of nesting: ten thousand
//! hosts and a default action are two groups.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::policy::{Packet, Policy, Span};
use crate::spec::FirewallAction;

/// A rule is cut into at most so many pieces before it goes behind the one that cuts it.
const MAX_PIECES: usize = 64;

/// What one rule decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) rule: usize,
    pub(super) action: FirewallAction,
    pub(super) to: Ipv4Net,
    pub(super) services: Span,
}

/// A policy in groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    pub(super) groups: Vec<Vec<Piece>>,
}

impl Compiled {
    /// What is decided about a packet, as the kernel does it: group after group. The number of
    /// the rule, and its action.
    pub fn decide(&self, packet: Packet) -> Option<(usize, FirewallAction)> {
        let service = packet.service();
        self.groups.iter().flatten().find_map(|piece| {
            let (first, last) = piece.services;
            (piece.to.contains(&packet.to) && (first..=last).contains(&service))
                .then_some((piece.rule, piece.action))
        })
    }

    /// How many groups a packet may have to pass.
    pub fn depth(&self) -> usize {
        self.groups.len()
    }

    /// Whether no two pieces of a group overlap, on which all rests.
    #[cfg(test)]
    pub(super) fn is_disjoint(&self) -> bool {
        self.groups.iter().all(|group| {
            group.iter().enumerate().all(|(index, one)| {
                group[index + 1..].iter().all(|other| {
                    let apart = !one.to.contains(&other.to) && !other.to.contains(&one.to);
                    apart || !overlap(&[one.services], &[other.services])
                })
            })
        })
    }
}

struct Placed {
    services: Vec<Span>,
    group: usize,
}

/// Puts a policy's rules into groups.
pub fn compile(policy: &Policy) -> Compiled {
    let mut placed: Vec<Placed> = Vec::with_capacity(policy.rules.len());
    // By first address and length of the network.
    let mut known: BTreeMap<(u32, u8), Vec<usize>> = BTreeMap::new();
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    for (number, rule) in policy.rules.iter().enumerate() {
        let length = rule.to.prefix_len();
        let start = u32::from(rule.to.network());
        let mut left = rule.services.clone();
        let mut group = 0;
        let broader = (0..=length).filter_map(|length| known.get(&(cut(start, length), length)));
        for earlier in broader.flatten().map(|index| &placed[*index]) {
            if !overlap(&left, &earlier.services) {
                continue;
            }
            let rest = without(&left, &earlier.services);
            if rest.len() <= MAX_PIECES.max(left.len()) {
                left = rest;
            } else {
                group = group.max(earlier.group + 1);
            }
        }
        let inside = (start, 0)..=(u32::from(rule.to.broadcast()), 32);
        let narrower = known
            .range(inside)
            .filter(|((_, other), _)| *other > length)
            .flat_map(|(_, indices)| indices);
        for earlier in narrower.map(|index| &placed[*index]) {
            if earlier.group >= group && overlap(&left, &earlier.services) {
                group = earlier.group + 1;
            }
        }
        if groups.len() <= group {
            groups.resize_with(group + 1, Vec::new);
        }
        groups[group].extend(left.iter().map(|services| Piece {
            rule: number,
            action: rule.action,
            to: rule.to,
            services: *services,
        }));
        known.entry((start, length)).or_default().push(number);
        placed.push(Placed {
            services: left,
            group,
        });
    }
    groups.retain(|group| !group.is_empty());
    Compiled { groups }
}

fn cut(address: u32, length: u8) -> u32 {
    // A prefix of at most 32 is always a network.
    Ipv4Net::new(Ipv4Addr::from(address), length).map_or(address, |net| net.network().into())
}

fn overlap(some: &[Span], others: &[Span]) -> bool {
    let (mut a, mut b) = (some.iter().peekable(), others.iter().peekable());
    while let (Some((first, last)), Some((from, to))) = (a.peek(), b.peek()) {
        if last < from {
            a.next();
        } else if to < first {
            b.next();
        } else {
            return true;
        }
    }
    false
}

/// `some` without `others`; both sorted, and so is what is left.
fn without(some: &[Span], others: &[Span]) -> Vec<Span> {
    let mut rest = Vec::with_capacity(some.len());
    for (mut first, last) in some.iter().copied() {
        let mut gone = false;
        for (from, to) in others.iter().copied() {
            if to < first {
                continue;
            }
            if from > last {
                break;
            }
            if from > first {
                rest.push((first, from - 1));
            }
            if to >= last {
                gone = true;
                break;
            }
            first = to + 1;
        }
        if !gone {
            rest.push((first, last));
        }
    }
    rest
}
