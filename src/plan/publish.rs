//! Who may have a volume beside whom.

use crate::volume::{Access, Mode, Publication};

/// What to do with a node that asks for a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// It may have it.
    Keep,
    /// It has it already, in another way.
    Differs {
        /// How it has it.
        held: String,
    },
    /// Another has it, and they exclude each other.
    Elsewhere {
        /// The other.
        node: String,
        /// The mode in the way.
        mode: Mode,
    },
}

/// `wanted` among `all`, in which it may stand itself already (CSI specification, ControllerPublishVolume).
pub fn publish(wanted: &Publication, all: &[Publication]) -> Publish {
    for held in all {
        if held.node == wanted.node {
            if held.access != wanted.access {
                return Publish::Differs { held: describe(held.access) };
            }
        } else if let Some(mode) = [held, wanted].iter().map(|p| p.access.mode).find(|mode| !mode.many_nodes()) {
            return Publish::Elsewhere { node: held.node.clone(), mode };
        }
    }
    let writes_alone = |p: &Publication| p.access.mode == Mode::MultiNodeSingleWriter && !p.access.readonly;
    let other_writer = all.iter().find(|held| held.node != wanted.node && writes_alone(held));
    match other_writer {
        Some(held) if writes_alone(wanted) => {
            Publish::Elsewhere { node: held.node.clone(), mode: Mode::MultiNodeSingleWriter }
        }
        _ => Publish::Keep,
    }
}

/// An access in words.
pub fn describe(access: Access) -> String {
    format!("{}{}", access.mode, if access.readonly { ", read-only" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &str, mode: Mode, readonly: bool) -> Publication {
        Publication { node: node.into(), access: Access { mode, readonly } }
    }

    #[test]
    fn publishing_twice_in_the_same_way_is_once() {
        let a = at("a", Mode::SingleNodeWriter, false);
        assert_eq!(publish(&a, std::slice::from_ref(&a)), Publish::Keep);
    }

    #[test]
    fn publishing_twice_in_another_way_is_refused() {
        let held = at("a", Mode::MultiNodeMultiWriter, false);
        for asked in [at("a", Mode::MultiNodeMultiWriter, true), at("a", Mode::MultiNodeReaderOnly, false)] {
            assert!(matches!(publish(&asked, std::slice::from_ref(&held)), Publish::Differs { .. }));
        }
    }

    #[test]
    fn a_single_node_mode_excludes_every_other_node() {
        let many = at("a", Mode::MultiNodeMultiWriter, false);
        for mode in [
            Mode::SingleNodeWriter,
            Mode::SingleNodeReaderOnly,
            Mode::SingleNodeSingleWriter,
            Mode::SingleNodeMultiWriter,
        ] {
            assert!(matches!(publish(&at("b", mode, false), std::slice::from_ref(&many)), Publish::Elsewhere { .. }));
            assert!(matches!(publish(&many, &[at("b", mode, false)]), Publish::Elsewhere { .. }));
        }
    }

    #[test]
    fn many_nodes_share_where_the_mode_says_so() {
        let modes = [Mode::MultiNodeMultiWriter, Mode::MultiNodeReaderOnly];
        for mode in modes {
            assert_eq!(publish(&at("b", mode, false), &[at("a", mode, false)]), Publish::Keep);
        }
    }

    #[test]
    fn of_many_nodes_with_a_single_writer_only_one_writes() {
        let writer = at("a", Mode::MultiNodeSingleWriter, false);
        let second = at("b", Mode::MultiNodeSingleWriter, false);
        let reader = at("b", Mode::MultiNodeSingleWriter, true);
        assert!(matches!(publish(&second, std::slice::from_ref(&writer)), Publish::Elsewhere { .. }));
        assert_eq!(publish(&reader, &[writer]), Publish::Keep);
    }
}
