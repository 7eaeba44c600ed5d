//! What writes that ended half way have left of this volume's objects, where the bucket is a directory.

use object_store::path::Path;

use super::names::Opener;
use super::{Vault, VaultError, header, segment};
use crate::store::Staged;

impl Vault {
    /// Files that were to become objects of this volume, or are about to; none where the bucket is no directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn staged(&self) -> Result<Vec<Staged>, VaultError> {
        let mut staged = self.bucket().staged().await?;
        let mut opener = Opener::new(self.ring());
        staged.retain(|file| {
            let Ok(object) = Path::parse(&file.object) else { return false };
            segment::is_segment(&object)
                || header::is_header(&object)
                || object.as_ref() == "probe/kept"
                || opener.open(&object).is_some()
        });
        Ok(staged)
    }

    /// Removes what [`Vault::staged`] has shown; that it is gone already is success.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn remove_staged(&self, staged: &Staged) -> Result<(), VaultError> {
        Ok(self.bucket().remove_staged(staged).await?)
    }
}
