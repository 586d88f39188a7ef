use smartvm::{Result, SmartVm};

use super::Ids;

pub(crate) async fn pause(smartvm: &SmartVm, ids: &Ids) -> Result<u8> {
    for id in ids.resolve(smartvm)? {
        smartvm.get(&id)?.pause().await?;
    }
    Ok(0)
}

pub(crate) async fn resume(smartvm: &SmartVm, ids: &Ids) -> Result<u8> {
    for id in ids.resolve(smartvm)? {
        smartvm.get(&id)?.resume().await?;
    }
    Ok(0)
}
