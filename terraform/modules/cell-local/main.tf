# A cell on this machine: cellctl asks the control plane, the control plane asks its local provider, and `--wait`
# returns when the cell is open for placement. Settings travel by environment and standard input, never
# as text inside a shell command.

locals {
  spec = {
    provider      = "local"
    region        = var.region
    failureDomain = coalesce(var.failure_domain, var.id)
    tiers         = sort(tolist(var.tiers))
    dedicated     = var.dedicated
    capacity = {
      tenants        = var.capacity.tenants
      bytes          = var.capacity.bytes
      rps            = var.capacity.rps
      maxTenantShare = var.capacity.max_tenant_share
    }
    reason = "terraform"
  }
}

# What the cell was created with. It never changes while the id stays, so that a changed setting can be told from
# what stands, at the time of planning.
resource "terraform_data" "created_as" {
  input            = local.spec
  triggers_replace = var.id

  lifecycle {
    ignore_changes = [input]
  }
}

resource "terraform_data" "cell" {
  input = {
    id       = var.id
    cellctl  = var.cellctl
    data_dir = var.data_dir
  }
  triggers_replace = var.id

  lifecycle {
    precondition {
      condition     = jsonencode(terraform_data.created_as.output) == jsonencode(local.spec)
      error_message = "Cell ${var.id} exists with other settings, and a cell is not changed in place: add a cell under a new id, move its tenants there, then remove this one."
    }
  }

  provisioner "local-exec" {
    command = "printf '%s' \"$CELL_SPEC\" | \"$CELLCTL\" cell create \"$CELL_ID\" --file /dev/stdin --wait --no-input"
    environment = {
      CELL_ID        = self.input.id
      CELL_SPEC      = jsonencode(local.spec)
      CELLCTL        = self.input.cellctl
      CELLFLEET_DATA = self.input.data_dir
    }
  }

  # Refused by the control plane while a tenant lives there: drain or move them first.
  provisioner "local-exec" {
    when    = destroy
    command = "\"$CELLCTL\" cell destroy \"$CELL_ID\" --confirm \"$CELL_ID\" --reason terraform --wait --no-input"
    environment = {
      CELL_ID        = self.input.id
      CELLCTL        = self.input.cellctl
      CELLFLEET_DATA = self.input.data_dir
    }
  }
}
