-- The audit log is append-only: an entry is never changed or removed. Whoever owns the database can
-- still drop the trigger; the hash chain and its end in `fleet` then show what was done.
CREATE FUNCTION "cellfleet_control"."refuse_audit_change"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
--> statement-breakpoint
CREATE TRIGGER "audit_append_only" BEFORE UPDATE OR DELETE OR TRUNCATE ON "cellfleet_control"."audit"
  FOR EACH STATEMENT EXECUTE FUNCTION "cellfleet_control"."refuse_audit_change"();
--> statement-breakpoint
-- Two numbers never fall, whoever writes them (corrections A5): the fleet's revision and an epoch.
CREATE FUNCTION "cellfleet_control"."refuse_falling_number"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_TABLE_NAME = 'fleet' AND NEW.revision < OLD.revision THEN
    RAISE EXCEPTION 'revision may not fall from % to %', OLD.revision, NEW.revision USING ERRCODE = 'check_violation';
  END IF;
  IF TG_TABLE_NAME = 'placement' THEN
    IF NEW.epoch < OLD.epoch THEN
      RAISE EXCEPTION 'epoch of % may not fall from % to %', OLD.key, OLD.epoch, NEW.epoch USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.cell <> OLD.cell AND NEW.epoch = OLD.epoch THEN
      RAISE EXCEPTION 'a new owner of % needs a greater epoch than %', OLD.key, OLD.epoch USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;
--> statement-breakpoint
CREATE TRIGGER "fleet_revision_rises" BEFORE UPDATE OF "revision" ON "cellfleet_control"."fleet"
  FOR EACH ROW EXECUTE FUNCTION "cellfleet_control"."refuse_falling_number"();
--> statement-breakpoint
CREATE TRIGGER "placement_epoch_rises" BEFORE UPDATE OF "epoch", "cell" ON "cellfleet_control"."placement"
  FOR EACH ROW EXECUTE FUNCTION "cellfleet_control"."refuse_falling_number"();
