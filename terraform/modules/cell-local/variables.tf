variable "id" {
  description = "Name of the cell. Ids are not reused: a cell that was destroyed needs a new one."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", var.id))
    error_message = "1 to 40 characters: lower-case letters, digits and dashes, no dash at either end."
  }
}

variable "data_dir" {
  description = "Data folder of the local fleet that the cell joins (`cellctl dev --data DIR`)."
  type        = string

  validation {
    condition     = startswith(var.data_dir, "/")
    error_message = "An absolute path: Terraform runs commands in a folder of its own."
  }
}

variable "cellctl" {
  description = "The cellctl to call: a name on the PATH, or an absolute path (`bin/cellctl.js` of a checkout)."
  type        = string
  default     = "cellctl"

  validation {
    condition     = startswith(var.cellctl, "/") || !strcontains(var.cellctl, "/")
    error_message = "A name on the PATH or an absolute path."
  }
}

variable "region" {
  description = "Where the cell stands; tenants that are bound to a region are placed by it."
  type        = string
  default     = "local"

  validation {
    condition     = length(var.region) >= 1 && length(var.region) <= 40
    error_message = "1 to 40 characters."
  }
}

variable "failure_domain" {
  description = "What the cell would fail together with; null means that it fails alone."
  type        = string
  default     = null

  validation {
    condition     = var.failure_domain == null ? true : length(var.failure_domain) >= 1 && length(var.failure_domain) <= 40
    error_message = "1 to 40 characters."
  }
}

variable "tiers" {
  description = "Tiers that may live in the cell; empty means all."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.tiers, ["standard", "gold", "free"])) == 0
    error_message = "Each is one of standard, gold, free."
  }
}

variable "dedicated" {
  description = "True: only tenants that were created for this cell by name."
  type        = bool
  default     = false
}

variable "capacity" {
  description = "What fits: tenants, bytes, requests per second, and the largest share one tenant may have (0 to 1)."
  type = object({
    tenants          = optional(number, 100000)
    bytes            = optional(number, 1099511627776)
    rps              = optional(number, 10000)
    max_tenant_share = optional(number, 0.5)
  })
  default = {}

  validation {
    condition     = var.capacity.tenants >= 0 && floor(var.capacity.tenants) == var.capacity.tenants
    error_message = "capacity.tenants is a whole number from 0."
  }
  validation {
    condition     = var.capacity.bytes >= 0 && floor(var.capacity.bytes) == var.capacity.bytes
    error_message = "capacity.bytes is a whole number from 0."
  }
  validation {
    condition     = var.capacity.rps >= 0
    error_message = "capacity.rps is a number from 0."
  }
  validation {
    condition     = var.capacity.max_tenant_share >= 0 && var.capacity.max_tenant_share <= 1
    error_message = "capacity.max_tenant_share lies between 0 and 1."
  }
}
