//! Every label of the format: one purpose each, none used twice.

/// Names one purpose of a key, of associated data or of a signature (`docs/FORMAT.md`, "Labels").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Label {
    /// Working key: objects of kind [`super::ObjectKind::Segment`].
    Content,
    /// Working key: objects of kind [`super::ObjectKind::Meta`].
    Meta,
    /// Working key: objects of kind [`super::ObjectKind::Audit`].
    Audit,
    /// Working key: objects of kind [`super::ObjectKind::Rescue`].
    Rescue,
    /// Working key (64 bytes) and associated data of file names.
    Name,
    /// Associated data of the names of extended attributes, under the key of [`Label::Name`].
    Xattr,
    /// Working key (64 bytes) and associated data of object path components.
    ObjectName,
    /// Working key: hedged salts of new objects.
    Salt,
    /// Working key: MAC of the volume header.
    HeaderMac,
    /// Working key: MAC of commit records.
    CommitMac,
    /// Working key: MAC of this device's local pin.
    Pin,
    /// Working key: this device's disk cache.
    Cache,
    /// Commitment to the volume key of an epoch.
    VmkCommit,
    /// Key and commitment of one sealed object.
    Object,
    /// Key of one slot, from its factors.
    Slot,
    /// Key (64 bytes) and associated data that wrap a slot's contents.
    SlotWrap,
    /// Commitment to the key of one slot.
    SlotCommit,
    /// Digest of a key file.
    KeyFile,
    /// Digest of a recovery code.
    RecoveryCode,
    /// Checksum inside a recovery code.
    RecoveryChecksum,
    /// Signature of the volume header.
    HeaderSignature,
    /// HMAC key: fingerprint of a volume.
    Fingerprint,
    /// Signature of a rollback that an admin accepts.
    Acceptance,
    /// Key (64 bytes) and associated data that wrap the volume keys of earlier epochs.
    EarlierVmk,
    /// Signature by which one admin key names the next.
    Succession,
}

impl Label {
    /// All labels.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 25] = [
        Self::Content,
        Self::Meta,
        Self::Audit,
        Self::Rescue,
        Self::Name,
        Self::Xattr,
        Self::ObjectName,
        Self::Salt,
        Self::HeaderMac,
        Self::CommitMac,
        Self::Pin,
        Self::Cache,
        Self::VmkCommit,
        Self::Object,
        Self::Slot,
        Self::SlotWrap,
        Self::SlotCommit,
        Self::KeyFile,
        Self::RecoveryCode,
        Self::RecoveryChecksum,
        Self::HeaderSignature,
        Self::Fingerprint,
        Self::Acceptance,
        Self::EarlierVmk,
        Self::Succession,
    ];

    /// The label's bytes, as they enter derivations.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Content => "coffer/1/content",
            Self::Meta => "coffer/1/meta",
            Self::Audit => "coffer/1/audit",
            Self::Rescue => "coffer/1/rescue",
            Self::Name => "coffer/1/name",
            Self::Xattr => "coffer/1/xattr",
            Self::ObjectName => "coffer/1/objname",
            Self::Salt => "coffer/1/salt",
            Self::HeaderMac => "coffer/1/header-mac",
            Self::CommitMac => "coffer/1/commit-mac",
            Self::Pin => "coffer/1/pin",
            Self::Cache => "coffer/1/cache",
            Self::VmkCommit => "coffer/1/vmk-commit",
            Self::Object => "coffer/1/object",
            Self::Slot => "coffer/1/slot",
            Self::SlotWrap => "coffer/1/slot-wrap",
            Self::SlotCommit => "coffer/1/slot-commit",
            Self::KeyFile => "coffer/1/key-file",
            Self::RecoveryCode => "coffer/1/recovery-code",
            Self::RecoveryChecksum => "coffer/1/recovery-checksum",
            Self::HeaderSignature => "coffer/1/header-signature",
            Self::Fingerprint => "coffer/1/fingerprint",
            Self::Acceptance => "coffer/1/acceptance",
            Self::EarlierVmk => "coffer/1/earlier-vmk",
            Self::Succession => "coffer/1/succession",
        }
    }

    /// [`Label::text`] as bytes.
    pub(crate) const fn bytes(self) -> &'static [u8] {
        self.text().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_format_page_lists_every_label() {
        let page = include_str!("../../docs/FORMAT.md");
        for label in Label::ALL {
            let name = label.text().strip_prefix("coffer/1/").unwrap();
            assert!(page.contains(&format!("\n| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn a8_no_label_is_used_twice_and_each_ends_before_the_first_zero_byte() {
        let texts: HashSet<_> = Label::ALL.iter().map(|label| label.text()).collect();
        assert_eq!(texts.len(), Label::ALL.len());
        for text in texts {
            let name = text.strip_prefix("coffer/1/").unwrap();
            assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{text}");
        }
    }
}
