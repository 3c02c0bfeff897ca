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
        } else if let Some(mode) = in_the_way(held.access, wanted.access) {
            return Publish::Elsewhere { node: held.node.clone(), mode };
        }
    }
    Publish::Keep
}

/// The mode by which the uses of two nodes exclude each other, if they do.
fn in_the_way(a: Access, b: Access) -> Option<Mode> {
    let modes = [a.mode, b.mode];
    let writers = [a, b].iter().filter(|access| !access.reads_only()).count();
    let among = |mode: Mode| modes.contains(&mode).then_some(mode);
    let single_node = modes.into_iter().find(|mode| !mode.many_nodes());
    let single_writer = among(Mode::MultiNodeSingleWriter).filter(|_| writers == 2);
    // Who was promised that nobody writes may rely on it.
    let no_writer = among(Mode::MultiNodeReaderOnly).filter(|_| writers > 0);
    single_node.or(single_writer).or(no_writer)
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
            assert!(matches!(
                publish(&at("b", mode, false), std::slice::from_ref(&many)),
                Publish::Elsewhere { .. }
            ));
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
    fn where_nobody_writes_no_writer_may_come() {
        let reader = at("a", Mode::MultiNodeReaderOnly, false);
        let writer = at("b", Mode::MultiNodeMultiWriter, false);
        assert!(matches!(publish(&writer, std::slice::from_ref(&reader)), Publish::Elsewhere { .. }));
        assert!(matches!(publish(&reader, &[writer]), Publish::Elsewhere { .. }));
        assert_eq!(publish(&at("b", Mode::MultiNodeMultiWriter, true), &[reader]), Publish::Keep);
    }

    #[test]
    fn a_single_writer_has_no_other_writer_beside_it_in_whatever_mode() {
        let single = at("a", Mode::MultiNodeSingleWriter, false);
        let other = at("b", Mode::MultiNodeMultiWriter, false);
        assert!(matches!(publish(&other, std::slice::from_ref(&single)), Publish::Elsewhere { .. }));
        assert!(matches!(publish(&single, &[other]), Publish::Elsewhere { .. }));
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
