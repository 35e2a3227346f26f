# Two more cells for a local fleet. Start one first (`npm start`), then here: `terraform init && terraform apply`.

variable "data_dir" {
  description = "Data folder of the running fleet."
  type        = string
  default     = "../../../.cellfleet"
}

variable "cellctl" {
  description = "The cellctl to call; null means that of the checkout."
  type        = string
  default     = null
}

variable "cells" {
  description = "Cells to add, by id, with the number of tenants that fit into each."
  type        = map(number)
  default     = { cell-04 = 500, cell-05 = 500 }
}

module "cell" {
  source   = "../../modules/cell-local"
  for_each = var.cells

  id       = each.key
  data_dir = abspath(var.data_dir)
  cellctl  = coalesce(var.cellctl, abspath("${path.module}/../../../bin/cellctl.js"))
  capacity = { tenants = each.value }
}

output "cells" {
  description = "Cells that are open for placement."
  value       = [for cell in module.cell : cell.id]
}
