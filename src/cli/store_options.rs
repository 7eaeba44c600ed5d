//! How to speak to a store: flags that each have a variable and, for mounts, an option.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::logging;
use crate::store::{Addressing, StoreOptions};

/// Where the name of an S3 bucket stands in addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AddressingArg {
    /// https://host/bucket
    Path,
    /// https://bucket.host
    Virtual,
}

/// How to speak to a store.
#[derive(Args, Clone, Debug, Default)]
pub struct ProviderArgs {
    /// S3: the bucket's name in the path or before the host
    #[arg(
        long,
        value_name = "WHERE",
        env = "COFFER_ADDRESSING",
        hide_env_values = true,
        help_heading = "Store"
    )]
    pub addressing: Option<AddressingArg>,
    /// S3: do not sign what is sent; for stores that cannot check it
    #[arg(long, help_heading = "Store")]
    pub unsigned_payload: bool,
    /// Trust the certificates in this file (PEM) beside the system's
    #[arg(long, value_name = "FILE", env = "COFFER_CA_FILE", hide_env_values = true, help_heading = "Store")]
    pub ca_file: Option<PathBuf>,
    /// Storage class of file contents, as the provider calls it; metadata stays in the bucket's usual one
    #[arg(
        long,
        value_name = "CLASS",
        env = "COFFER_STORAGE_CLASS",
        hide_env_values = true,
        help_heading = "Store"
    )]
    pub storage_class: Option<String>,
    /// S3: the profile of ~/.aws/config and ~/.aws/credentials to use
    #[arg(
        long,
        value_name = "NAME",
        env = "COFFER_AWS_PROFILE",
        hide_env_values = true,
        help_heading = "Store"
    )]
    pub aws_profile: Option<String>,
}

impl ProviderArgs {
    /// Takes a setting of `-o`; says whether it is one of these.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "addressing" => self.addressing = Some(AddressingArg::from_str(value, true)?),
            "unsigned-payload" => self.unsigned_payload = true,
            "ca-file" => self.ca_file = Some(PathBuf::from(value)),
            "storage-class" => self.storage_class = Some(value.to_owned()),
            "aws-profile" => self.aws_profile = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts them into what a bucket is opened with. A file's path is made absolute, so that it stays true when the
    /// process leaves its directory.
    ///
    /// # Errors
    /// When the current directory is gone.
    pub fn apply(&self, options: &mut StoreOptions) -> super::error::CommandResult {
        options.addressing = self.addressing.map(|addressing| match addressing {
            AddressingArg::Path => Addressing::Path,
            AddressingArg::Virtual => Addressing::Virtual,
        });
        options.unsigned_payload = self.unsigned_payload;
        options.ca_file = self.ca_file.as_deref().map(logging::absolute).transpose()?;
        options.storage_class.clone_from(&self.storage_class);
        options.aws_profile.clone_from(&self.aws_profile);
        Ok(())
    }
}
